// A client for WHIP (RFC 9725) and WHEP: one POST opens a session, PATCH trickles candidates and restarts ICE, DELETE ends it.

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

/** The Link headers of an answer (RFC 8288). `fetch` joins them by commas, which quoted values may hold as well. */
function linksOf(headers) {
  const links = (headers.get("Link") ?? "").matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^",;\s]*))*)/g);
  return [...links].map(([, target, attributes]) => {
    const pairs = [...attributes.matchAll(/;\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^",;\s]*))/g)];
    const values = new Map(pairs.map(([, name, quoted, plain]) => [name.toLowerCase(), quoted?.replace(/\\(.)/g, "$1") ?? plain]));
    return { target, values, rels: values.get("rel")?.split(/\s+/) ?? [] };
  });
}

/** The STUN and TURN servers that an answer names by Link headers (RFC 9725 §4.6), as RTCPeerConnection takes them. */
export function iceServers(headers) {
  return linksOf(headers).flatMap(({ target: urls, values, rels }) => {
    if (!/^(stun|turn)s?:/i.test(urls) || !rels.includes("ice-server")) return [];
    const [username, credential] = [values.get("username"), values.get("credential")];
    return [username === undefined ? { urls } : { urls, username, credential }];
  });
}

const FRAGMENT = "application/trickle-ice-sdpfrag";
/**
 * When an ICE restart is asked for, in ms, as long as no answer came: each connection that the browser kept may be one of the network
 * before, and dead.
 */
const RESTART_ATTEMPTS = [0, 100, 200, 300, 500, 1000, 2500, 5000];
const RESTART_TIMEOUT = 8000;

/** The line of an attribute in a description or fragment. */
const attribute = (text, name) => text.match(new RegExp(`^a=${name}:.*$`, "m"))?.[0].trim();

/** An answer with the ICE credentials and candidates of a fragment in place of its own. */
function withIce(answer, fragment) {
  const candidates = fragment.match(/^a=(candidate:|end-of-candidates).*$/gm) ?? [];
  const own = /^a=(ice-ufrag|ice-pwd|candidate|end-of-candidates)\b/;
  const ice = ["ice-ufrag", "ice-pwd"].map((name) => attribute(fragment, name));
  const lines = answer.split(/\r?\n/).flatMap((line) => {
    if (line.startsWith("a=ice-ufrag:")) return [...ice, ...candidates.map((candidate) => candidate.trim())];
    return own.test(line) ? [] : [line];
  });
  return lines.join("\r\n");
}

/** The URLs of the extensions that an answer names (WHEP §4.10), by the last part of their names. */
function extensionsOf(response) {
  const named = linksOf(response.headers).flatMap(({ target, rels }) =>
    rels.filter((rel) => rel.startsWith("urn:ietf:params:whep:ext:core:")).map((rel) => [rel.split(":").at(-1), new URL(target, response.url).href]),
  );
  return Object.fromEntries(named);
}

/** A session on the server, from the answer to its POST until close(). */
export class Session {
  #headers;
  #etag;
  #pc;
  #queue = [];
  #sending = false;
  #restarting = null;
  #closed = false;
  #remote;

  constructor(url, etag, headers, pc, remote, extensions) {
    this.url = url;
    this.extensions = extensions;
    this.#remote = remote;
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
    const remote = await response.text();
    const opened = new Session(new URL(location, response.url).href, response.headers.get("ETag"), headers, pc, remote, extensionsOf(response));
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
    if (!this.#sending && !this.#restarting) this.#flush();
  }

  async #flush() {
    this.#sending = true;
    while (this.#queue.length && !this.#closed && !this.#restarting) {
      // Candidates come in bursts: one request carries what a burst brought.
      await new Promise((resolve) => setTimeout(resolve, 20));
      const body = this.#fragment(this.#queue.splice(0));
      try {
        const response = await this.#patch(body, this.#etag);
        // A server without trickle works with what it has.
        if (!response.ok) break;
      } catch {
        break;
      }
    }
    this.#sending = false;
  }

  #patch(body, ifMatch, signal) {
    const headers = { ...this.#headers, "Content-Type": FRAGMENT };
    if (ifMatch) headers["If-Match"] = ifMatch;
    return fetch(this.url, { method: "PATCH", headers, body, signal });
  }

  /**
   * Restarts ICE (RFC 9725 §4.3.3). Media flow as before until a pair of the new credentials is nominated; keys and counters stay.
   * Resolves with true if the server took part, false if it refused, and null where it was not reached: the session is as it was then.
   */
  restart(signal) {
    this.#restarting ??= this.#restart(signal).finally(() => {
      this.#restarting = null;
      if (this.#queue.length && !this.#sending) this.#flush();
    });
    return this.#restarting;
  }

  async #restart(signal) {
    const pc = this.#pc;
    if (this.#closed || pc.signalingState !== "stable") return null;
    // What waits is of the credentials before.
    this.#queue = [];
    await pc.setLocalDescription(await pc.createOffer({ iceRestart: true }));
    const { status, etag, fragment } = await this.#askForRestart(this.#fragment([]), signal);
    if (pc.signalingState !== "have-local-offer") return null;
    if (status !== 200) {
      await pc.setLocalDescription({ type: "rollback" });
      return status ? false : null;
    }
    this.#etag = etag;
    this.#remote = withIce(this.#remote, fragment);
    await pc.setRemoteDescription({ type: "answer", sdp: this.#remote });
    return true;
  }

  /** The first answer to a restart. The same request gets the same answer each time. */
  async #askForRestart(body, signal) {
    const over = new AbortController();
    const until = AbortSignal.any([over.signal, signal, AbortSignal.timeout(RESTART_TIMEOUT)]);
    const attempts = RESTART_ATTEMPTS.map(async (delay) => {
      await new Promise((resolve) => setTimeout(resolve, delay));
      until.throwIfAborted();
      const response = await this.#patch(body, "*", until);
      if ([429, 503].includes(response.status)) throw await HttpError.from(response);
      return { status: response.status, etag: response.headers.get("ETag"), fragment: await response.text() };
    });
    try {
      return await Promise.any(attempts);
    } catch {
      return {};
    } finally {
      over.abort();
    }
  }

  #fragment(candidates) {
    const sdp = this.#pc.localDescription.sdp;
    const line = (name) => attribute(sdp, name);
    const lines = [line("ice-ufrag"), line("ice-pwd")];
    // One transport carries everything: its section is the first.
    lines.push(`m=${sdp.match(/^m=(\w+)/m)?.[1] ?? "audio"} 9 UDP/TLS/RTP/SAVPF 0`, line("mid"));
    for (const candidate of candidates) {
      if (candidate?.candidate) lines.push(`a=${candidate.candidate}`);
      else lines.push("a=end-of-candidates");
    }
    return lines.filter(Boolean).join("\r\n") + "\r\n";
  }

  /** Makes an event stream of the server's, if it has any, and returns its URL. */
  async events(kinds, signal) {
    const url = this.extensions["server-sent-events"];
    if (!url) return null;
    const headers = { ...this.#headers, "Content-Type": "application/json" };
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(kinds), signal });
    const location = response.headers.get("Location");
    if (response.status !== 201 || !location) throw await HttpError.from(response);
    return new URL(location, response.url).href;
  }

  /** Asks for a layer of the video: what is left out is the server's to choose. */
  async select(wanted) {
    const headers = { ...this.#headers, "Content-Type": "application/json" };
    const response = await fetch(this.extensions.layer, { method: "POST", headers, body: JSON.stringify(wanted) });
    if (!response.ok) throw await HttpError.from(response);
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
