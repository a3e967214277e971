// What the publish and watch pages share: state, stages, figures, and the loop that keeps a session alive.

import { watchNetwork } from "./network.js";
import { HttpError, Session } from "./whip.js";

const STAGES = ["signaling", "ice", "dtls", "fingerprint", "srtp", "media"];
const FIRST_RETRY = 1;
const LONGEST_RETRY = 10;
/** A lost connection has this long, in ms, to come back by ICE restarts before another session is opened. */
const RECOVERY = 10_000;
/** Restarts are at least so far apart, in ms: the server takes one a second. */
const RESTART_INTERVAL = 1_500;

export const query = new URLSearchParams(location.search);

/** Takes a token out of the address, where screens, histories and logs would show it, and returns it. */
function tokenOfAddress() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const [inFragment, inQuery] = [fragment.get("token"), query.get("token")];
  if (inFragment === null && inQuery === null) return "";
  fragment.delete("token");
  const rest = new URLSearchParams(query);
  rest.delete("token");
  const [search, hash] = [rest, fragment].map(String);
  history.replaceState(history.state, "", location.pathname + (search && `?${search}`) + (hash && `#${hash}`));
  return inFragment ?? inQuery;
}

// At once: nothing else of the page sees it there.
const givenToken = tokenOfAddress();

export const streamName = decodeURIComponent(location.pathname.split("/").pop());
export const element = (id) => document.getElementById(id);

/** What tests and curious people read: `window.sluice`. */
export const page = {
  state: "idle",
  stream: streamName,
  pc: null,
  session: null,
  stages: [],
  warnings: [],
  stats: {},
  error: null,
  retries: 0,
  restarts: 0,
};
window.sluice = page;

document.title = `${streamName} – ${document.title}`;
element("stream").textContent = streamName;

export function setState(state, text) {
  page.state = state;
  document.body.dataset.state = state;
  element("status").textContent = text;
}

/** Shows an error, or takes it away. */
export function setError(error) {
  page.error = error ? { message: error.message, status: error.status ?? null, code: error.code ?? null } : null;
  element("alert").hidden = !error;
  element("alert").textContent = error?.message ?? "";
}

/**
 * The token: what the address says (`#token=…`, which no server and no proxy is sent), else what the field holds or this tab's
 * earlier visit said. A reload finds it again, though the address has it no more.
 */
export function rememberToken() {
  const key = `sluice-token:${streamName}`;
  const field = element("token");
  if (givenToken) sessionStorage.setItem(key, givenToken);
  field.value = givenToken || field.value || (sessionStorage.getItem(key) ?? "");
  field.addEventListener("change", () => sessionStorage.setItem(key, field.value));
  return () => field.value.trim();
}

function node(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** What a warning of the ledger means to the person in front of the page. */
const NOTICES = {
  "codec-refused": ({ kind }) =>
    kind === "audio" ? "There is no sound: this browser cannot play the stream's audio." : "There is no picture: this browser cannot play the stream's video.",
  "track-missing": ({ kind }) => `The stream has no ${kind} at the moment. It comes back by itself.`,
  "profile-mismatch": () => "The encoder sends another profile than it announces. Viewers get what their browsers can play.",
  "bitrate-exceeded": () => "The encoder sends more than it may, and part of it is dropped. Lower its bitrate.",
  "format-ignored": () => "A format of the offer was left out.",
};

/** Shows what is less than it could be, in words, with the facts of the case behind them. */
function showWarnings(stages) {
  const warnings = stages.flatMap((stage) => stage.warnings ?? []);
  page.warnings = warnings;
  const told = warnings.filter(({ code }) => code in NOTICES);
  element("notice").hidden = told.length === 0;
  element("notice").replaceChildren(
    ...told.map((warning) => {
      const item = node("p", NOTICES[warning.code](warning));
      item.append(node("small", warning.detail));
      return item;
    }),
  );
}

function describe({ state, started_ms, ended_ms, reason, detail, reopened, warnings }) {
  if (state === "failed") return reason ?? "failed";
  if (state === "done") return [reopened ? "done again" : `${ended_ms - (started_ms ?? 0)} ms`, ...(warnings ?? []).map(({ code }) => code)].join(", ");
  return state === "running" ? detail || "under way" : "waiting";
}

export function showStages(stages) {
  page.stages = stages;
  const byName = new Map(stages.map((stage) => [stage.stage, stage]));
  element("stages").replaceChildren(
    ...STAGES.map((name) => {
      const stage = byName.get(name) ?? { state: "waiting" };
      const item = node("li", "", { "data-stage": name, "data-state": stage.state, title: stage.detail || name });
      if (stage.warnings?.length) item.dataset.warned = "";
      item.append(node("b", name), node("small", describe(stage)));
      return item;
    }),
  );
  showWarnings(stages);
  const failed = stages.find((stage) => stage.state === "failed");
  if (failed) {
    setError(Object.assign(new Error([`${failed.stage}: ${failed.reason}.`, failed.detail && `${failed.detail}.`, failed.advice].filter(Boolean).join(" ")), { code: failed.reason }));
  } else if (page.error?.code && !page.error.status) {
    setError(null);
  }
}

export function showStats(stats) {
  page.stats = stats;
  element("stats").replaceChildren(
    ...Object.entries(stats.shown).map(([name, value]) => {
      const item = node("div", "");
      item.append(node("dt", name), node("dd", value));
      return item;
    }),
  );
}

/** Figures of one second: `read` turns the report and the one before into `{shown, ...}`. */
function figures(pc, read) {
  let before = new Map();
  return async () => {
    const report = await pc.getStats();
    showStats(read([...report.values()], (entry) => before.get(entry.id), report));
    before = new Map(report);
  };
}

/** Bits a second between two entries, as text. */
export function rate(entry, earlier, field) {
  if (!entry || !earlier) return "–";
  const seconds = (entry.timestamp - earlier.timestamp) / 1000;
  const kilobits = (8 * (entry[field] - earlier[field])) / seconds / 1000;
  if (!(kilobits >= 0)) return "–";
  return kilobits >= 1000 ? `${(kilobits / 1000).toFixed(2)} Mbit/s` : `${kilobits.toFixed(0)} kbit/s`;
}

export const codecName = (report, entry) => report.get(entry?.codecId)?.mimeType.split("/")[1] ?? "–";

/** The SRTP cipher, in words that can wrap. */
export const cipherName = (transport) => transport?.srtpCipher?.replace(/^SRTP_/, "").replaceAll("_", " ") ?? "–";

function sleep(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

/** Restarts ICE when the connection or the network seems to need it, until `signal`; `lost` is called where that is of no use. */
function keepConnected(pc, session, lost, signal) {
  let [hasConnected, since, last, timer] = [false, null, -Infinity, null];
  const now = () => performance.now();
  const restart = () => {
    if (!hasConnected || now() - last < RESTART_INTERVAL) return false;
    last = now();
    const took = session.restart(signal).catch(() => null);
    took.then((done) => (done ? (page.restarts += 1) : done === false && lost()));
    return true;
  };
  const look = () => {
    clearTimeout(timer);
    if (signal.aborted) return;
    const { connectionState: state, iceConnectionState: ice } = pc;
    if (state === "connected" && ice !== "disconnected") return ([hasConnected, since] = [true, null]);
    if (!hasConnected) return state === "failed" && lost();
    since ??= now();
    if (now() - since >= RECOVERY) return lost();
    if ([state, ice].some((one) => one === "disconnected" || one === "failed")) restart();
    timer = setTimeout(look, RESTART_INTERVAL / 3);
  };
  pc.addEventListener("connectionstatechange", look, { signal });
  pc.addEventListener("iceconnectionstatechange", look, { signal });
  addEventListener("online", restart, { signal });
  navigator.connection?.addEventListener("change", restart, { signal });
  watchNetwork(pc, restart, signal);
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  look();
}

/** Why a session is over that has a successor. */
const MOVED = "The server asked to open another session.";

/** Resolves with the reason when the connection or the server's session is over. */
function untilOver(pc, session, { read, connected, opened }, succeed, signal) {
  return new Promise((resolve) => {
    let timer = null;
    const done = new AbortController();
    const over = (why) => {
      clearTimeout(timer);
      done.abort();
      resolve(why);
    };
    signal.addEventListener("abort", () => over("stopped"), { once: true });
    const check = () => {
      if (pc.connectionState === "connected") connected();
      if (pc.connectionState === "closed") over("The connection was lost.");
    };
    pc.addEventListener("connectionstatechange", check);
    check();
    opened?.(session, done.signal, (endpoint) => succeed(endpoint, done.signal).then((successor) => successor && over(MOVED), () => {}));
    keepConnected(pc, session, () => over("The connection was lost."), done.signal);
    const tick = figures(pc, read);
    let beats = 0;
    const beat = async () => {
      try {
        // The ledger moves within the first second and hardly ever later; figures want one look a second.
        const ledger = await session.stages();
        if (ledger) showStages(ledger.stages);
        if (!ledger) return over("The server knows this session no more.");
        if (ledger.state === "closed" || ledger.state === "closing") return over(`The session ended: ${ledger.reason ?? "closed by the server"}.`);
      } catch {
        // The server may be out of reach while media still flows: the connection's state decides.
      }
      if (beats % 5 === 0 || page.stages.some((stage) => stage.state === "done" && stage.stage === "media")) await tick().catch(() => {});
      const settled = page.stages.length > 0 && page.stages.every((stage) => stage.state === "done" || stage.state === "failed");
      beats += 1;
      if (!done.signal.aborted) timer = setTimeout(beat, settled ? 1000 : 200);
    };
    beat();
  });
}

/** Resolves when a connection is up, with false if it does not get there. */
function connects(pc, signal) {
  return new Promise((resolve) => {
    const look = () => {
      if (pc.connectionState === "connected") resolve(true);
      else if (signal.aborted || ["failed", "closed"].includes(pc.connectionState)) resolve(false);
    };
    pc.addEventListener("connectionstatechange", look);
    signal.addEventListener("abort", look, { once: true });
    look();
  });
}

/**
 * Opens sessions one after the other until stopped: `setUp(pc)` says what to send or receive, `read` makes figures,
 * `connected` is called when media may flow, `opened(session, signal, move)` when there is a session; `move(endpoint)` replaces it
 * by another one without a gap. Waits as long as the server asks, else longer each time.
 */
export class Keeper {
  #stop = null;
  /** A session that was opened in the place of one that is still there. */
  #successor = null;
  /** The endpoint before the server named another one, until that one has proved to be right. */
  #former = null;
  /** Aborts with the session that was asked to give way. */
  #leaving = null;

  constructor({ endpoint, token, setUp, read, connected, opened, fatal, waiting }) {
    Object.assign(this, { endpoint, token, setUp, read, connected, opened, fatal, waiting });
    addEventListener("pagehide", () => this.stop());
  }

  get running() {
    return this.#stop !== null;
  }

  stop() {
    this.#stop?.abort();
    this.#stop = null;
  }

  async #open(endpoint, signal, made = () => {}) {
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    made(pc);
    try {
      await this.setUp(pc);
      const session = await Session.open(pc, endpoint, { token: this.token(), signal });
      // The page may go while the session opens or lives: nobody else would tell the server.
      signal.addEventListener("abort", () => session.close(), { once: true });
      if (signal.aborted) session.close();
      return { pc, session };
    } catch (error) {
      pc.close();
      throw error;
    }
  }

  /** Opens the session after the present one, which goes on meanwhile; until `over` it is tried again as the server says. */
  async #succeed(endpoint, over, signal) {
    // The server may say it again.
    if (this.#leaving === over) return null;
    this.#leaving = over;
    if (endpoint !== this.endpoint) [this.endpoint, this.#former] = [endpoint, this.endpoint];
    while (!over.aborted && !this.#successor) {
      try {
        const next = await this.#open(endpoint, signal);
        if ((await connects(next.pc, over)) && !over.aborted) return (this.#successor = next);
        next.session.close();
        next.pc.close();
      } catch (error) {
        await sleep(error.retryAfter ?? LONGEST_RETRY, over);
        continue;
      }
      await sleep(FIRST_RETRY, over);
    }
    return null;
  }

  async run() {
    this.stop();
    const stop = new AbortController();
    this.#stop = stop;
    const { signal } = stop;
    let retry = FIRST_RETRY;
    page.retries = 0;
    page.restarts = 0;
    while (!signal.aborted) {
      setError(null);
      showStages([]);
      const successor = this.#successor;
      this.#successor = null;
      if (!successor) setState(page.retries ? "reconnecting" : "connecting", page.retries ? "Connecting again" : "Connecting");
      let delay = null;
      try {
        const { endpoint } = this;
        const { pc, session } = successor ?? (await this.#open(endpoint, signal, (pc) => (page.pc = pc)));
        Object.assign(page, { pc, session });
        const { read, opened } = this;
        const connected = () => {
          if (this.endpoint === endpoint) this.#former = null;
          retry = FIRST_RETRY;
          this.connected(pc);
        };
        const why = await untilOver(pc, session, { read, connected, opened }, (endpoint, over) => this.#succeed(endpoint ?? this.endpoint, over, signal), signal);
        session.close();
        pc.close();
        if (this.#successor && !signal.aborted) continue;
        if (!signal.aborted) setError(page.error ? { ...page.error } : new Error(why));
      } catch (error) {
        if (signal.aborted) break;
        const http = error instanceof HttpError;
        setError(error);
        if (http && this.fatal(error) && !this.#former) {
          this.stop();
          setState("failed", "Failed");
          return;
        }
        delay = http ? error.retryAfter : null;
        if (this.#former) [this.endpoint, this.#former] = [this.#former, this.endpoint];
      }
      if (signal.aborted) break;
      delay ??= retry;
      retry = Math.min(retry * 2, LONGEST_RETRY);
      page.retries += 1;
      this.waiting(delay);
      await sleep(delay, signal);
    }
    this.#successor?.pc.close();
    this.#successor = null;
    // A later run may have begun meanwhile: the state is its own then.
    if (this.#stop === null || this.#stop === stop) setState("stopped", "Stopped");
  }
}
