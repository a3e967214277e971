// The publish page: capture, send, and show how far the session came.
// Parameters for automation: auto=1, source=camera|screen|microphone|pattern, codec=VP8|…, bitrate=KBIT, sound=red;
// in the fragment #token=….

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
    const sendEncodings = video ? [{ maxBitrate: 1000 * Math.max(50, Number(element("bitrate").value) || 2500) }] : undefined;
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

function read(entries, before, report) {
  const outbound = (kind) => entries.find((entry) => entry.type === "outbound-rtp" && entry.kind === kind);
  const [video, audio] = [outbound("video"), outbound("audio")];
  const remote = entries.find((entry) => entry.type === "remote-inbound-rtp");
  const pair = entries.find((entry) => entry.type === "candidate-pair" && entry.nominated && entry.state === "succeeded");
  const transport = entries.find((entry) => entry.type === "transport");
  const trip = remote?.roundTripTime ?? pair?.currentRoundTripTime;
  const shown = {};
  if (video) {
    shown["Video codec"] = codecName(report, video);
    shown.Resolution = video.frameWidth ? `${video.frameWidth} × ${video.frameHeight}` : "–";
    shown["Frame rate"] = video.framesPerSecond === undefined ? "–" : `${video.framesPerSecond} fps`;
    shown["Video rate"] = rate(video, before(video), "bytesSent");
    shown["Limited by"] = video.qualityLimitationReason === "none" ? "nothing" : (video.qualityLimitationReason ?? "–");
  }
  if (audio) shown["Audio rate"] = rate(audio, before(audio), "bytesSent");
  shown["Round trip"] = trip === undefined ? "–" : `${(1000 * trip).toFixed(0)} ms`;
  shown.Protection = cipherName(transport);
  return {
    shown,
    framesEncoded: video?.framesEncoded ?? 0,
    keyFramesEncoded: video?.keyFramesEncoded ?? 0,
    packetsSent: video?.packetsSent ?? 0,
    pliCount: video?.pliCount ?? 0,
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
if (query.get("auto") === "1") start();
