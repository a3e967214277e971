// libwebrtc without a browser, as it is built into @roamhq/wrtc: it encodes raw pictures and sound that are made here.

import wrtc from '@roamhq/wrtc';

import { FRAMES } from './media.js';
import { options, serve } from './protocol.js';
import { end, post } from './whip.js';

const { url, codec } = options;
const [WIDTH, HEIGHT] = [320, 240];
const RATE = 48000;
// The audio source takes 10 ms at a time.
const SAMPLES = RATE / 100;

/** Calls `work` `perSecond` times a second on the whole, however late single timers are. */
function pace(perSecond, work) {
  const began = performance.now();
  let done = 0;
  return setInterval(() => {
    for (const due = ((performance.now() - began) * perSecond) / 1000; done < due; done += 1) work(done);
  }, 1000 / perSecond / 2);
}

const pc = new wrtc.RTCPeerConnection();
const picture = new wrtc.nonstandard.RTCVideoSource();
const sound = new wrtc.nonstandard.RTCAudioSource();
const transceiver = pc.addTransceiver(picture.createTrack(), { direction: 'sendonly' });
const wanted = wrtc.RTCRtpSender.getCapabilities('video').codecs.filter(({ mimeType }) => [`video/${codec}`, 'video/rtx'].includes(mimeType));
transceiver.setCodecPreferences(wanted);
pc.addTransceiver(sound.createTrack(), { direction: 'sendonly' });

await pc.setLocalDescription(await pc.createOffer());
if (pc.iceGatheringState !== 'complete') {
  await new Promise((resolve) => {
    pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && resolve();
  });
}
const { answer, session } = await post(url, pc.localDescription.sdp);
await pc.setRemoteDescription({ type: 'answer', sdp: answer });

const data = new Uint8ClampedArray((WIDTH * HEIGHT * 3) / 2).fill(128);
const timers = [
  pace(FRAMES, (number) => {
    // A bright bar that moves down.
    data.fill(40, 0, WIDTH * HEIGHT);
    const top = (number * 4) % (HEIGHT - 20);
    data.fill(220, top * WIDTH, (top + 20) * WIDTH);
    picture.onFrame({ width: WIDTH, height: HEIGHT, data });
  }),
  pace(100, (number) => {
    const samples = Int16Array.from({ length: SAMPLES }, (_, index) => 8000 * Math.sin((2 * Math.PI * 440 * (number * SAMPLES + index)) / RATE));
    sound.onData({ samples, sampleRate: RATE, bitsPerSample: 16, channelCount: 1, numberOfFrames: SAMPLES });
  }),
];

async function figures() {
  const reports = [...(await pc.getStats()).values()].filter(({ type }) => type === 'outbound-rtp');
  const of = (kind) => reports.find((report) => report.kind === kind) ?? {};
  return { frames: of('video').framesSent ?? of('video').framesEncoded ?? 0, audio: of('audio').packetsSent ?? 0 };
}

await serve({
  figures,
  leave: async () => {
    timers.forEach(clearInterval);
    await end(session);
    pc.close();
  },
});
