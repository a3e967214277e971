// The watch page: receive, play, and show how far the session came.
// Parameters for automation: auto=0 to wait for a click; in the fragment #token=….

import { root } from "./whip.js";
import { follow, showPresent } from "./layers.js";
import { Keeper, cipherName, codecName, element, page, query, rate, rememberToken, setState, showStages, showStats, streamName } from "./page.js";

const player = element("player");
/** The server's code for an offer without a codec of the stream. */
const UNPLAYABLE = "sdp-no-common-codec";
const token = rememberToken();

function hint(text) {
  element("hint").textContent = text;
}

async function setUp(pc) {
  const began = performance.now();
  const stream = new MediaStream();
  page.firstFrameMs = null;
  const show = () => {
    if (player.srcObject === stream) return;
    player.srcObject = stream;
    player.play().catch(() => {});
    // Fires for the first decoded frame, in a hidden page too.
    player.addEventListener("loadeddata", () => (page.firstFrameMs = Math.round(performance.now() - began)), { once: true });
  };
  pc.addEventListener("track", ({ track }) => {
    stream.addTrack(track);
    if (page.state !== "playing") return show();
    // Another session in the place of one that plays: its picture stays until there is one of this.
    const isFirst = () => track.kind === "video" || stream.getVideoTracks().length === 0;
    track.addEventListener("unmute", () => isFirst() && show(), { once: true });
  });
  for (const kind of ["video", "audio"]) offerLayers(pc.addTransceiver(kind, { direction: "recvonly" }));
  if (page.state === "playing") return;
  player.controls = false;
  hint("Connecting");
}

/** Offers what tells a decoder the layers of a picture apart, which browsers have and do not offer by themselves. */
function offerLayers(transceiver) {
  const extensions = transceiver.getHeaderExtensionsToNegotiate?.();
  const descriptor = extensions?.find(({ uri }) => uri.endsWith("#dependency-descriptor-rtp-header-extension"));
  if (!descriptor) return;
  descriptor.direction = "sendrecv";
  transceiver.setHeaderExtensionsToNegotiate(extensions);
}

/** Nobody publishes, or somebody does again. */
function publication(isActive) {
  if (!isActive) setState("waiting", "The publisher is away");
  else if (page.state === "waiting") setState("playing", "Playing");
}

function read(entries, before, report) {
  const inbound = (kind) => entries.find((entry) => entry.type === "inbound-rtp" && entry.kind === kind);
  const [video, audio] = [inbound("video"), inbound("audio")];
  const transport = entries.find((entry) => entry.type === "transport");
  const main = video ?? audio;
  const shown = {};
  if (video) {
    shown["Video codec"] = codecName(report, video);
    shown.Resolution = video.frameWidth ? `${video.frameWidth} × ${video.frameHeight}` : "–";
    shown["Frame rate"] = video.framesPerSecond === undefined ? "–" : `${video.framesPerSecond} fps`;
    shown["Video rate"] = rate(video, before(video), "bytesReceived");
  }
  showPresent({ width: video?.frameWidth, height: video?.frameHeight, frameRate: video?.framesPerSecond, rate: video ? shown["Video rate"] : "–" });
  if (audio) shown["Audio rate"] = rate(audio, before(audio), "bytesReceived");
  if (main) {
    const all = main.packetsReceived + main.packetsLost;
    shown.Lost = all > 0 ? `${main.packetsLost} (${((100 * main.packetsLost) / all).toFixed(2)} %)` : "–";
    shown.Jitter = main.jitter === undefined ? "–" : `${(1000 * main.jitter).toFixed(0)} ms`;
  }
  if (page.firstFrameMs) shown["First frame"] = `${page.firstFrameMs} ms`;
  shown.Protection = cipherName(transport);
  return {
    shown,
    framesDecoded: video?.framesDecoded ?? 0,
    packetsReceived: video?.packetsReceived ?? 0,
    packetsLost: (video?.packetsLost ?? 0) + (audio?.packetsLost ?? 0),
    audioEnergy: audio?.totalAudioEnergy ?? 0,
    srtpCipher: transport?.srtpCipher ?? null,
    codec: video ? codecName(report, video) : null,
  };
}

const keeper = new Keeper({
  endpoint: `${root}whep/${encodeURIComponent(streamName)}`,
  token,
  setUp,
  read,
  opened: (session, signal, move) => follow(session, signal, move, publication),
  connected: () => page.state !== "playing" && hint(page.warnings.some(({ kind }) => kind === "video") ? "There is no picture" : "Waiting for the first picture"),
  fatal: (error) => {
    element("credentials").hidden = ![401, 403].includes(error.status);
    // The publisher may return with a codec that the browser has.
    return error.status < 500 && ![404, 409, 429].includes(error.status) && error.code !== UNPLAYABLE;
  },
  waiting: (seconds) => {
    const absent = [404, 409].includes(page.error?.status);
    const unplayable = page.error?.code === UNPLAYABLE;
    setState(absent || unplayable ? "waiting" : "reconnecting", absent ? "Not live yet" : unplayable ? "Cannot be played" : "Connecting again");
    const what = absent ? "The stream is not live." : "This browser cannot play what the stream is sent as.";
    hint(absent || unplayable ? `${what} Next look in ${seconds} s.` : `Next try in ${seconds} s.`);
    // That nobody publishes yet is no error.
    if (absent) element("alert").hidden = true;
  },
});

function playing() {
  if (!keeper.running || !player.srcObject) return;
  setState("playing", "Playing");
  player.controls = true;
  element("unmute").hidden = !player.muted;
}

player.addEventListener("playing", playing);
player.addEventListener("volumechange", () => (element("unmute").hidden = !player.muted || page.state !== "playing"));
element("unmute").addEventListener("click", () => {
  player.muted = false;
  player.play().catch(() => {});
});

async function start() {
  element("credentials").hidden = true;
  element("toggle").textContent = "Stop";
  await keeper.run();
  player.srcObject = null;
  player.controls = false;
  element("unmute").hidden = true;
  element("toggle").textContent = "Watch";
  hint(page.state === "failed" ? "Nothing to show" : "Stopped");
}

element("toggle").addEventListener("click", () => (keeper.running ? keeper.stop() : start()));
element("credentials").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
Object.assign(page, { start, stop: () => keeper.stop() });

showStages([]);
showStats({ shown: { "Video codec": "–", Resolution: "–", "Frame rate": "–", "Video rate": "–", Lost: "–", Jitter: "–" } });
if (query.get("auto") === "0") {
  setState("idle", "Ready");
  element("toggle").textContent = "Watch";
  hint("Ready");
} else {
  start();
}
