// A client for WHIP (RFC 9725) and WHEP: one POST opens a session, PATCH trickles candidates, DELETE ends it.

/** Root of the server's public URLs, with a slash at its end. */
export const root = new URL("..", import.meta.url).href;

/** An answer of the server that is no success. */
export class HttpError extends Error {
  constructor(response, problem) {
    super(problem?.detail || problem?.title || `the server answered ${response.status}`);
    this.status = response.status;
    this.code = problem?.code ?? null;
    const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
    this.retryAfter = seconds > 0 ? seconds : null;
  }

  static async from(response) {
    return new HttpError(response, await response.json().catch(() => null));
  }
}

/**
 * The STUN and TURN servers that an answer names by Link headers (RFC 9725 §4.6), as RTCPeerConnection takes them. `fetch` joins
 * the headers by commas, which quoted values may hold as well.
 */
export function iceServers(headers) {
  const links = (headers.get("Link") ?? "").matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^",;\s]*))*)/g);
  return [...links].flatMap(([, urls, attributes]) => {
    const pairs = [...attributes.matchAll(/;\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^",;\s]*))/g)];
    const values = new Map(pairs.map(([, name, quoted, plain]) => [name.toLowerCase(), quoted?.replace(/\\(.)/g, "$1") ?? plain]));
    if (!/^(stun|turn)s?:/i.test(urls) || !values.get("rel")?.split(/\s+/).includes("ice-server")) return [];
    const [username, credential] = [values.get("username"), values.get("credential")];
    return [username === undefined ? { urls } : { urls, username, credential }];
  });
}

/** A session on the server, from the answer to its POST until close(). */
export class Session {
  #headers;
  #etag;
  #pc;
  #queue = [];
  #sending = false;
  #closed = false;

  constructor(url, etag, headers, pc) {
    this.url = url;
    this.#etag = etag;
    this.#headers = headers;
    this.#pc = pc;
  }

  /**
   * Offers what `pc` holds to an endpoint and applies the answer; or answers what a server offers that cannot serve that.
   * The POST does not wait for candidates: a server with ICE-lite needs none, and for others they follow by PATCH. They are
   * gathered from the local description on, with the servers that are known by then: those that the answer names.
   */
  static async open(pc, endpoint, { token, signal } = {}) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const early = [];
    let session = null;
    pc.addEventListener("icecandidate", ({ candidate }) => {
      if (session) session.#trickle(candidate);
      else early.push(candidate);
    });
    const offer = await pc.createOffer();
    const response = await fetch(endpoint, {
      method: "POST",
      headers: { ...headers, "Content-Type": "application/sdp" },
      body: offer.sdp,
      signal,
    });
    // WHEP §4.3.2: the server offers what it has, instead.
    const isCounterOffer = response.status === 406 && /^application\/sdp\s*(;|$)/i.test(response.headers.get("Content-Type") ?? "");
    if (response.status !== 201 && !isCounterOffer) throw await HttpError.from(response);
    const location = response.headers.get("Location");
    if (!location) throw new Error("the server named no session URL");
    const opened = new Session(new URL(location, response.url).href, response.headers.get("ETag"), headers, pc);
    const remote = await response.text();
    const servers = iceServers(response.headers);
    try {
      if (servers.length) pc.setConfiguration({ ...pc.getConfiguration(), iceServers: servers });
      if (isCounterOffer) await opened.#answer(remote, signal);
      else {
        await pc.setLocalDescription(offer);
        await pc.setRemoteDescription({ type: "answer", sdp: remote });
      }
    } catch (error) {
      opened.close();
      throw error;
    }
    if (!/^a=ice-lite\s*$/m.test(remote)) {
      session = opened;
      early.forEach((candidate) => opened.#trickle(candidate));
    }
    return opened;
  }

  /** Answers an offer of the server's. Nothing was offered by this side as far as the connection knows. */
  async #answer(offer, signal) {
    await this.#pc.setRemoteDescription({ type: "offer", sdp: offer });
    const { sdp: body } = await this.#pc.createAnswer();
    const response = await fetch(this.url, { method: "PATCH", headers: { ...this.#headers, "Content-Type": "application/sdp" }, body, signal });
    if (!response.ok) throw await HttpError.from(response);
    await this.#pc.setLocalDescription({ type: "answer", sdp: body });
  }

  #trickle(candidate) {
    this.#queue.push(candidate);
    if (!this.#sending) this.#flush();
  }

  async #flush() {
    this.#sending = true;
    while (this.#queue.length && !this.#closed) {
      // Candidates come in bursts: one request carries what a burst brought.
      await new Promise((resolve) => setTimeout(resolve, 20));
      const body = this.#fragment(this.#queue.splice(0));
      const headers = { ...this.#headers, "Content-Type": "application/trickle-ice-sdpfrag" };
      if (this.#etag) headers["If-Match"] = this.#etag;
      try {
        const response = await fetch(this.url, { method: "PATCH", headers, body });
        // A server without trickle works with what it has.
        if (!response.ok) break;
      } catch {
        break;
      }
    }
    this.#sending = false;
  }

  #fragment(candidates) {
    const sdp = this.#pc.localDescription.sdp;
    const line = (name) => sdp.match(new RegExp(`^a=${name}:.*$`, "m"))?.[0].trim();
    const lines = [line("ice-ufrag"), line("ice-pwd")];
    // One transport carries everything: its section is the first.
    lines.push(`m=${sdp.match(/^m=(\w+)/m)?.[1] ?? "audio"} 9 UDP/TLS/RTP/SAVPF 0`, line("mid"));
    for (const candidate of candidates) {
      if (candidate?.candidate) lines.push(`a=${candidate.candidate}`);
      else lines.push("a=end-of-candidates");
    }
    return lines.filter(Boolean).join("\r\n") + "\r\n";
  }

  /** The server's ledger of this session, or null once the server knows it no more. */
  async stages() {
    const response = await fetch(`${this.url}/stages`, { headers: this.#headers, cache: "no-store" });
    if (response.status === 404) return null;
    if (!response.ok) throw await HttpError.from(response);
    return response.json();
  }

  /** Ends the session; the request outlives the page. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    fetch(this.url, { method: "DELETE", headers: this.#headers, keepalive: true }).catch(() => {});
  }
}
