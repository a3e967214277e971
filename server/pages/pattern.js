// A test source: colour bars with a clock and a moving ball; a tone with a beep and a flash at each full second.

const WIDTH = 1280;
const HEIGHT = 720;
const BARS = ["#c0c0c0", "#c0c000", "#00c0c0", "#00c000", "#c000c0", "#c00000", "#0000c0"];

function draw(context, frame, now) {
  const bar = WIDTH / BARS.length;
  BARS.forEach((colour, index) => {
    context.fillStyle = colour;
    context.fillRect(Math.floor(index * bar), 0, Math.ceil(bar), HEIGHT * 0.72);
  });
  context.fillStyle = "#101418";
  context.fillRect(0, HEIGHT * 0.72, WIDTH, HEIGHT * 0.28);
  const millis = now % 1000;
  if (millis < 100) {
    context.fillStyle = "#ffffff";
    context.fillRect(WIDTH - 170, HEIGHT * 0.72 + 30, 140, 140);
  }
  context.fillStyle = "#ffffff";
  context.font = "600 92px ui-monospace, monospace";
  context.textBaseline = "middle";
  context.fillText(new Date(now).toISOString().slice(11, 23), 40, HEIGHT * 0.83);
  context.font = "30px ui-monospace, monospace";
  context.fillText(`frame ${frame}`, 44, HEIGHT * 0.94);
  // One round in two seconds: a dropped or repeated frame shows as a jerk.
  const angle = (now % 2000) * (Math.PI / 1000);
  context.beginPath();
  context.arc(WIDTH / 2 + 200 * Math.cos(angle), HEIGHT * 0.36 + 200 * Math.sin(angle), 36, 0, 2 * Math.PI);
  context.fillStyle = "#ffffff";
  context.fill();
  context.lineWidth = 6;
  context.strokeStyle = "#101418";
  context.stroke();
}

/** A stream with one video and one audio track, and `stop` to end it. */
export async function testPattern() {
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const context = canvas.getContext("2d", { alpha: false });

  const audio = new AudioContext();
  const output = audio.createMediaStreamDestination();
  const voice = (frequency, level) => {
    const oscillator = audio.createOscillator();
    const gain = audio.createGain();
    oscillator.frequency.value = frequency;
    gain.gain.value = level;
    oscillator.connect(gain).connect(output);
    oscillator.start();
    return gain.gain;
  };
  voice(440, 0.06);
  const beep = voice(880, 0);
  // Without a click on the page the browser may refuse; the tone then begins with the next click.
  audio.resume().catch(() => {});
  const wake = () => audio.resume().catch(() => {});
  addEventListener("pointerdown", wake);

  let frame = 0;
  let second = 0;
  const tick = () => {
    const now = Date.now();
    draw(context, frame++, now);
    if (Math.floor(now / 1000) !== second) {
      second = Math.floor(now / 1000);
      beep.setValueAtTime(0.25, audio.currentTime);
      beep.setValueAtTime(0, audio.currentTime + 0.1);
    }
  };
  tick();
  const ticker = new Worker(new URL("ticker.js", import.meta.url));
  ticker.onmessage = tick;

  const stream = canvas.captureStream(30);
  stream.addTrack(output.stream.getAudioTracks()[0]);
  const stop = () => {
    ticker.terminate();
    removeEventListener("pointerdown", wake);
    stream.getTracks().forEach((track) => track.stop());
    audio.close().catch(() => {});
  };
  return { stream, stop };
}
