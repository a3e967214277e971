// The publish page: capture, send, and show how far the session came.
// Parameters for automation: auto=1, source=camera|screen|microphone|pattern, codec=VP8|…, bitrate=KBIT, sound=red,
// layers=simulcast|L3T3_KEY|…; in the fragment #token=….

import { root } from "./whip.js";
import { Keeper, cipherName, codecName, element, page, query, rate, rememberToken, setError, setState, showStages, showStats, streamName } from "./page.js";
import { testPattern } from "./pattern.js";

const WANTED_CODECS = ["VP8", "VP9", "H264", "AV1", "H265"];

const name = (codec) => codec.mimeType.split("/")[1].toUpperCase();
const codecs = (kind) => RTCRtpSender.getCapabilities?.(kind)?.codecs ?? [];
const videoCodecs = codecs("video");
const token = rememberToken();
let capture = null;

element("watch-link").href = `${root}watch/${encodeURIComponent(streamName)}`;
element("codec").append(
  new Option("Automatic", ""),
  ...WANTED_CODECS.filter((wanted) => videoCodecs.some((codec) => name(codec) === wanted)).map((codec) => new Option(codec, codec)),
);
for (const id of ["source", "codec", "bitrate", "sound"]) {
  const given = query.get(id);
  if (given !== null) element(id).value = id === "codec" ? given.toUpperCase() : given;
}

/** Scalability modes (W3C WebRTC-SVC) that are offered where the browser has them, and what they mean. */
const SCALABILITY = {
  L1T2: "2 frame rates",
  L1T3: "3 frame rates",
  L2T1: "2 sizes",
  L3T3: "3 sizes, 3 frame rates",
  L3T3_KEY: "3 sizes, 3 frame rates, bound at keyframes",
  S2T1: "2 independent sizes",
};
const SIMULCAST = "simulcast";

/** Encodings of simulcast: how much smaller than the capture, and the part of the largest one's bitrate. */
const ENCODINGS = [
  { rid: "q", scaleResolutionDownBy: 4, part: 0.08 },
  { rid: "h", scaleResolutionDownBy: 2, part: 0.28 },
  { rid: "f", scaleResolutionDownBy: 1, part: 1 },
];

/** Whether the browser does what it is told of scalability modes: some take no notice. */
function hasScalability() {
  const pc = new RTCPeerConnection();
  try {
    const { sender } = pc.addTransceiver("video", { sendEncodings: [{ scalabilityMode: "L1T2" }] });
    return sender.getParameters().encodings?.[0]?.scalabilityMode === "L1T2";
  } catch {
    return false;
  } finally {
    pc.close();
  }
}

/** The scalability modes in which the browser encodes a codec. */
async function scalabilityModes(codec) {
  if (!codec || !navigator.mediaCapabilities?.encodingInfo || !hasScalability()) return [];
  const supported = Object.keys(SCALABILITY).map(async (scalabilityMode) => {
    const video = { contentType: `video/${codec}`, width: 1280, height: 720, bitrate: 2_500_000, framerate: 30, scalabilityMode };
    const info = await navigator.mediaCapabilities.encodingInfo({ type: "webrtc", video }).catch(() => null);
    return info?.supported ? scalabilityMode : null;
  });
  return (await Promise.all(supported)).filter(Boolean);
}

/** What can be chosen depends on the codec; what was chosen stays where it can. */
async function offerLayers(chosen) {
  const codec = element("codec").value;
  const modes = await scalabilityModes(codec);
  if (codec !== element("codec").value) return;
  element("layers").replaceChildren(
    new Option("One size", ""),
    new Option("Simulcast: 3 sizes, each encoded by itself", SIMULCAST),
    ...modes.map((mode) => new Option(`${mode}: ${SCALABILITY[mode]}`, mode)),
  );
  element("layers").value = chosen === SIMULCAST || modes.includes(chosen) ? chosen : "";
}

element("codec").addEventListener("change", () => offerLayers(element("layers").value));
const layersOffered = offerLayers(query.get("layers") ?? "");

/** What the browser is to make of the video. */
function encodingsOf(layers, codec) {
  const most = 1000 * Math.max(50, Number(element("bitrate").value) || 2500);
  if (layers === SIMULCAST) {
    // Without a mode of their own, several encodings of these codecs are one scalable stream in Chromium.
    const mode = ["VP9", "AV1"].includes(codec) && hasScalability() ? { scalabilityMode: "L1T1" } : {};
    return ENCODINGS.map(({ part, ...encoding }) => ({ ...encoding, ...mode, maxBitrate: Math.round(Math.max(50_000, part * most)) }));
  }
  return [{ maxBitrate: most, ...(layers && { scalabilityMode: layers }) }];
}

async function open(source) {
  const media = navigator.mediaDevices;
  if (source === "pattern") return testPattern();
  if (!media) throw new Error("The browser gives camera, microphone and screen to https:// pages and to localhost only.");
  const video = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  const stream =
    source === "screen"
      ? await media.getDisplayMedia({ video: true, audio: true })
      : await media.getUserMedia({ audio: true, video: source === "microphone" ? false : video });
  return { stream, stop: () => stream.getTracks().forEach((track) => track.stop()) };
}

/** Offers the chosen codec and its retransmissions only. */
function prefer(transceiver, wanted) {
  if (!wanted) return;
  const chosen = videoCodecs.filter((codec) => name(codec) === wanted);
  if (!chosen.length) throw new Error(`This browser cannot send ${wanted}.`);
  transceiver.setCodecPreferences([...chosen, ...videoCodecs.filter((codec) => name(codec) === "RTX")]);
}

/** Offers redundant sound (RFC 2198) first: a browser sends what comes first. */
function preferRedundant(transceiver) {
  const red = codecs("audio").filter((codec) => name(codec) === "RED");
  if (!red.length) throw new Error("This browser cannot send sound twice.");
  transceiver.setCodecPreferences([...red, ...codecs("audio").filter((codec) => name(codec) === "OPUS")]);
}

async function setUp(pc) {
  for (const track of capture.stream.getTracks()) {
    const video = track.kind === "video";
    const sendEncodings = video ? encodingsOf(element("layers").value, element("codec").value) : undefined;
    const init = { direction: "sendonly", streams: [capture.stream] };
    const transceiver = pc.addTransceiver(track, sendEncodings ? { ...init, sendEncodings } : init);
    if (!video) {
      if (element("sound").value === "red") preferRedundant(transceiver);
      continue;
    }
    prefer(transceiver, element("codec").value);
    // Drop frames rather than detail: a browser that shrinks the picture at the start takes long to grow it again.
    const parameters = transceiver.sender.getParameters();
    parameters.degradationPreference = "maintain-resolution";
    await transceiver.sender.setParameters(parameters).catch(() => {});
  }
}

/** One field of several entries, summed, and the same of a second before. */
function total(entries, before, field) {
  const known = entries.filter((entry) => before(entry));
  if (!known.length) return [undefined, undefined];
  const sum = (list) => ({ timestamp: list[0].timestamp, [field]: list.reduce((all, entry) => all + entry[field], 0) });
  return [sum(known), sum(known.map(before))];
}

function read(entries, before, report) {
  const outbound = (kind) => entries.filter((entry) => entry.type === "outbound-rtp" && entry.kind === kind);
  // Of simulcast's encodings the largest that is sent stands for all.
  const encodings = outbound("video").sort((a, b) => (b.frameWidth ?? 0) - (a.frameWidth ?? 0));
  const [[video], [audio]] = [encodings, outbound("audio")];
  const sum = (name) => encodings.reduce((all, entry) => all + (entry[name] ?? 0), 0);
  const remote = entries.find((entry) => entry.type === "remote-inbound-rtp");
  const pair = entries.find((entry) => entry.type === "candidate-pair" && entry.nominated && entry.state === "succeeded");
  const transport = entries.find((entry) => entry.type === "transport");
  const trip = remote?.roundTripTime ?? pair?.currentRoundTripTime;
  const shown = {};
  if (video) {
    shown["Video codec"] = codecName(report, video);
    shown.Resolution = video.frameWidth ? `${video.frameWidth} × ${video.frameHeight}` : "–";
    shown["Frame rate"] = video.framesPerSecond === undefined ? "–" : `${video.framesPerSecond} fps`;
    shown["Video rate"] = rate(...total(encodings, before, "bytesSent"), "bytesSent");
    if (encodings.length > 1) shown.Encodings = encodings.map((entry) => (entry.framesPerSecond ? `${entry.frameHeight}p` : `${entry.rid} off`)).join(", ");
    if (video.scalabilityMode && video.scalabilityMode !== "L1T1") shown.Scalability = video.scalabilityMode;
    shown["Limited by"] = video.qualityLimitationReason === "none" ? "nothing" : (video.qualityLimitationReason ?? "–");
  }
  if (audio) shown["Audio rate"] = rate(audio, before(audio), "bytesSent");
  shown["Round trip"] = trip === undefined ? "–" : `${(1000 * trip).toFixed(0)} ms`;
  shown.Protection = cipherName(transport);
  return {
    shown,
    framesEncoded: video?.framesEncoded ?? 0,
    keyFramesEncoded: video?.keyFramesEncoded ?? 0,
    packetsSent: sum("packetsSent"),
    pliCount: sum("pliCount"),
    srtpCipher: transport?.srtpCipher ?? null,
  };
}

const keeper = new Keeper({
  endpoint: `${root}whip/${encodeURIComponent(streamName)}`,
  token,
  setUp,
  read,
  connected: () => setState("live", "Live"),
  // A publisher whose stream is still held by its own lost session gets through when that one expires.
  fatal: (error) => error.status < 500 && ![409, 429].includes(error.status),
  waiting: (seconds) => setState("reconnecting", `Again in ${seconds} s`),
});

function controls(running) {
  element("settings").disabled = running;
  element("start").hidden = running;
  element("stop").hidden = !running;
}

function release() {
  capture?.stop();
  capture = null;
  element("preview").srcObject = null;
  element("preview").classList.remove("filled");
  controls(false);
}

async function start() {
  if (capture) return;
  setError(null);
  controls(true);
  setState("capturing", "Opening the source");
  try {
    capture = await open(element("source").value);
  } catch (error) {
    const refused = error.name === "NotAllowedError" ? new Error("The browser was not allowed to open the source.") : error;
    setError(refused);
    setState("failed", "Failed");
    return release();
  }
  element("preview").srcObject = capture.stream;
  element("preview").classList.add("filled");
  // Ending the share from the browser's own bar ends the session.
  capture.stream.getTracks().forEach((track) => track.addEventListener("ended", () => keeper.stop()));
  await keeper.run();
  release();
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
element("stop").addEventListener("click", () => keeper.stop());
Object.assign(page, { start, stop: () => keeper.stop() });

showStages([]);
showStats({ shown: { "Video codec": "–", Resolution: "–", "Frame rate": "–", "Video rate": "–", "Round trip": "–" } });
if (query.get("auto") === "1") layersOffered.then(start);
