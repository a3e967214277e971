// End-to-end encryption by encoded transforms: publisher and viewers encrypt and decrypt frames in a worker, with a key that
// the server never has. What it reads of a payload stays in clear; see docs/security.md.

import assert from 'node:assert/strict';

import { expectLedgerDone } from './expect.js';
import { poll } from './poll.js';
import { suite } from './scenario.js';

/** Pictures that are as near as this are the same but for what moves, and those farther apart than that are others. */
const SAME = 20;
const OTHER = 40;

/** The worker of a page: AES-GCM over all of a frame but what stands in clear. */
function worker() {
  const IV = 12;
  const SLICES = [1, 5];

  /** Where H.264's first slice begins to be encrypted: behind its header and the byte that says whether it is the first. */
  const firstSlice = (data) => {
    for (let at = 0; at + 4 < data.length; at += 1) {
      const found = data[at] === 0 && data[at + 1] === 0 && data[at + 2] === 1 && SLICES.includes(data[at + 3] & 0x1f);
      if (found) return at + 5;
    }
    return data.length;
  };
  const clear = {
    VP8: (_, type) => (type === 'key' ? 10 : 3),
    VP9: () => 1,
    H264: firstSlice,
    Opus: () => 1,
  };

  /** Emulation prevention (H.264 §7.4.1): ciphertext must not look like a start code, nor end in a zero. */
  const escape = (data) => {
    const out = [];
    for (const byte of [...data, 0x80]) {
      if (byte <= 3 && out.at(-1) === 0 && out.at(-2) === 0) out.push(3);
      out.push(byte);
    }
    return Uint8Array.from(out);
  };
  const unescape = (data) => {
    const out = [];
    let zeros = 0;
    for (const byte of data) {
      if (zeros >= 2 && byte === 3) {
        zeros = 0;
        continue;
      }
      zeros = byte === 0 ? zeros + 1 : 0;
      out.push(byte);
    }
    return Uint8Array.from(out.slice(0, -1));
  };
  const joined = (...parts) => new Uint8Array(parts.flatMap((part) => [...part])).buffer;

  const encrypt = async (key, data, from, escaped) => {
    const iv = crypto.getRandomValues(new Uint8Array(IV));
    const sealed = await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, key, data.subarray(from));
    const body = [...iv, ...new Uint8Array(sealed)];
    return joined(data.subarray(0, from), escaped ? escape(body) : body);
  };
  const decrypt = async (key, data, from, escaped) => {
    const body = escaped ? unescape(data.subarray(from)) : data.subarray(from);
    const iv = body.slice(0, IV);
    return joined(data.subarray(0, from), new Uint8Array(await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, key, body.slice(IV))));
  };

  self.onrtctransform = ({ transformer }) => {
    const { sends, secret, codec } = transformer.options;
    const key = crypto.subtle.importKey('raw', new Uint8Array(16).fill(secret), 'AES-GCM', false, ['encrypt', 'decrypt']);
    const transform = async (frame, controller) => {
      const data = new Uint8Array(frame.data);
      const from = Math.min(clear[codec](data, frame.type), data.length);
      try {
        frame.data = await (sends ? encrypt : decrypt)(await key, data, from, codec === 'H264');
      } catch {
        return; // Another key: the frame is of no use.
      }
      controller.enqueue(frame);
    };
    transformer.readable.pipeThrough(new TransformStream({ transform })).pipeTo(transformer.writable);
  };
}

/** Runs inside a page: all that its peer connection sends and receives goes through the worker. */
function transformed({ source, secret, video }) {
  const worker = new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })));
  const through = (kind, sends) => new RTCRtpScriptTransform(worker, { sends, secret, codec: kind === 'video' ? video : 'Opus' });
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    addTransceiver(track, init) {
      const transceiver = super.addTransceiver(track, init);
      const { sender, receiver } = transceiver;
      if (init.direction === 'sendonly') sender.transform = through(track.kind, true);
      else receiver.transform = through(receiver.track.kind, false);
      return transceiver;
    }
  };
}

/** A page with this key. Sluice's own pages forbid workers from elsewhere, which an application would not. */
function keyed(secret, video) {
  return { options: { bypassCSP: true }, init: transformed, argument: { source: `(${worker})()`, secret, video } };
}

/** A small copy of what a page's video element shows, or nothing if it shows nothing. */
function picture(peer) {
  return peer.page.evaluate(() => {
    const video = document.querySelector('video');
    if (!video?.videoWidth) return undefined;
    const canvas = new OffscreenCanvas(32, 18).getContext('2d');
    canvas.drawImage(video, 0, 0, 32, 18);
    return [...canvas.getImageData(0, 0, 32, 18).data];
  });
}

/** How far two pictures are apart, per sample, of 255. */
function difference(one, other) {
  return one.reduce((sum, sample, index) => sum + Math.abs(sample - other[index]), 0) / one.length;
}

/** A viewer decodes on, and shows what the publisher shows, and that moves. */
async function expectSeen(publisher, viewer) {
  const { received } = await viewer.figures();
  const before = await poll('a picture', () => picture(viewer));
  await viewer.until('to decode 30 more frames', (later) => later.received.video.framesDecoded >= received.video.framesDecoded + 30);
  await poll('the picture to be that of the publisher', async () => difference(await picture(publisher), await picture(viewer)) < SAME);
  await poll('the picture to move', async () => difference(before, await picture(viewer)) > 0);
}

suite('end-to-end encryption', { ice: 'lite' }, (test) => {
  for (const codec of ['VP8', 'VP9', 'H264']) {
    test(`${codec} that the server cannot read is seen by who has the key alone`, async (scenario) => {
      const stream = `secret-${codec.toLowerCase()}`;
      // Not the fake camera: its background is the very green of a decoder that has decoded nothing.
      const publisher = await scenario.publish(stream, { codec, source: 'pattern', bitrate: '800' }, keyed(7, codec));
      const { sent } = await scenario.publishing(publisher);
      assert.equal(sent.codec, `video/${codec}`);

      const viewer = await scenario.watch(stream, {}, keyed(7, codec));
      await scenario.firstFrame(viewer);
      await expectSeen(publisher, viewer);

      // Another key, and none at all: packets come, and no picture of the publisher's.
      const [stranger, bystander] = [await scenario.watch(stream, {}, keyed(8, codec)), await scenario.watch(stream)];
      for (const peer of [stranger, bystander]) {
        await peer.until('to receive video', ({ received }) => received.video?.packetsReceived > 100);
      }
      assert.equal((await stranger.figures()).received.video.framesDecoded, 0, 'with another key nothing can be decoded');
      const [original, shown] = [await picture(publisher), await picture(bystander)];
      assert.ok(!shown || difference(original, shown) > OTHER, `without a key: ${shown && difference(original, shown)}`);

      await expectSeen(publisher, viewer);
      await expectLedgerDone(scenario.server, stream, 'publisher');
      const sessions = await scenario.server.sessionsOf(stream, 'viewer');
      const media = sessions[0].stages.find(({ stage }) => stage === 'media');
      assert.equal(media.state, 'done', JSON.stringify(sessions[0].stages));
    });
  }
});
