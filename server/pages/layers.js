// What the server tells of a stream while it is watched, and the choice of its layers (the core extensions of WHEP).

import { element, page, setError } from "./page.js";

const EVENTS = ["active", "inactive", "layers", "reconnect", "viewercount"];
/** Over HTTP/1.1 a browser has six connections to a server for all of its tabs: those that nobody sees leave theirs to others. */
const isScarce = performance.getEntriesByType("navigation")[0]?.nextHopProtocol === "http/1.1";

const menu = element("quality");
/** M-line of the video, its layers from the highest quality on, and the one that the person wants. */
let [line, layers, wanted] = [null, [], null];
/** The choice that is in force, and in which session. */
let applied = {};
Object.assign(page, { layers, wanted, viewers: null, isActive: null });

const keyOf = ({ rid, spatialLayerId, temporalLayerId }) => [rid ?? "", spatialLayerId ?? "", temporalLayerId ?? ""].join("/");
const rate = (bits) => (bits >= 1e6 ? `${(bits / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bits / 1000)} kbit/s`);

function sizeOf({ rid, height, frameRate, spatialLayerId }) {
  const name = height ? `${height}p` : (rid ?? `Layer ${spatialLayerId ?? 0}`);
  return frameRate ? `${name}, ${Math.round(frameRate)} fps` : name;
}

/** Writes the menu anew where its entries changed, else their texts only: it may be open. */
function showMenu() {
  const sent = layers.filter((layer) => layer.bitrate > 0 || keyOf(layer) === wanted);
  const keys = ["", ...sent.map(keyOf)];
  if (keys.join() !== [...menu.options].map((option) => option.value).join()) {
    menu.replaceChildren(...keys.map((key) => new Option("", key)));
    menu.value = keys.includes(wanted) ? wanted : "";
  }
  sent.forEach((layer, index) => {
    const text = layer.bitrate > 0 ? `${sizeOf(layer)} – ${rate(layer.bitrate)}` : `${sizeOf(layer)} – not sent now`;
    if (menu.options[index + 1].text !== text) menu.options[index + 1].text = text;
  });
  element("quality-field").hidden = sent.length < 2 || !page.session?.extensions.layer;
  showAutomatic(null);
}

/** What the automatic choice is at present stands beside its name. */
function showAutomatic(height) {
  const text = wanted || !height ? "Automatic" : `Automatic (${height}p)`;
  if (menu.options.length && menu.options[0].text !== text) menu.options[0].text = text;
}

/** Tells the server what the person wants. */
async function select(session) {
  const layer = layers.find((layer) => keyOf(layer) === wanted);
  const { rid, spatialLayerId, temporalLayerId } = layer ?? {};
  applied = { session, key: wanted };
  try {
    await session.select({ mediaId: line, rid, spatialLayerId, temporalLayerId });
  } catch (error) {
    applied = {};
    setError(error);
  }
}

menu.addEventListener("change", () => {
  wanted = menu.value || null;
  page.wanted = wanted;
  showAutomatic(null);
  if (page.session && line !== null) select(page.session);
});

/** What a viewer receives, once a second: `size` of the frames and their `rate` as text. */
export function showPresent({ width, height, frameRate, rate: received }) {
  const size = width ? `${width} × ${height}` : "";
  element("present").textContent = [size, frameRate && `${Math.round(frameRate)} fps`, width && received !== "–" && received].filter(Boolean).join(", ");
  showAutomatic(height);
}

/** What each event does, for a session. `move` opens another session in its place. */
function reactions(session, move, publication) {
  return {
    active: () => publication((page.isActive = true)),
    inactive: () => publication((page.isActive = false)),
    reconnect: ({ url }) => move(url),
    viewercount: ({ viewercount }) => {
      page.viewers = viewercount;
      element("viewers").hidden = false;
      element("viewers").textContent = viewercount === 1 ? "1 viewer" : `${viewercount} viewers`;
    },
    layers: (data) => {
      [line, layers] = Object.entries(data)[0] ?? [line, []];
      page.layers = layers;
      showMenu();
      // A session before this one had the choice, or it could not be had until now.
      const isApplied = applied.session === session && applied.key === wanted;
      if (!isApplied && layers.some((layer) => keyOf(layer) === wanted)) select(session);
    },
  };
}

/**
 * Follows the events of a session until `signal`; `publication` is told whether somebody publishes. Resolves once it listens, or
 * knows that the server has no events.
 */
export async function follow(session, signal, move, publication) {
  const url = await session.events(EVENTS, signal).catch(() => null);
  if (!url || signal.aborted) return;
  const react = reactions(session, move, publication);
  let source = null;
  const listen = () => {
    const isWanted = !signal.aborted && !(isScarce && document.hidden);
    if (!isWanted) {
      source?.close();
      source = null;
    } else if (!source) {
      source = new EventSource(url);
      for (const [kind, act] of Object.entries(react)) source.addEventListener(kind, ({ data }) => act(JSON.parse(data)));
    }
  };
  document.addEventListener("visibilitychange", listen, { signal });
  signal.addEventListener("abort", listen, { once: true });
  listen();
}
