// Codecs and profiles that not every browser has: whoever can play a stream sees it, and whoever cannot is told why.

import assert from 'node:assert/strict';

import { expectFlow } from './expect.js';
import { outputFile, suite } from './scenario.js';
import { poll } from './poll.js';

/** Runs inside a page that has not begun: its offers hold only these video codecs, such as a browser that has no others. */
function offerOnly({ name, fmtp }) {
  const original = RTCPeerConnection.prototype.addTransceiver;
  RTCPeerConnection.prototype.addTransceiver = function (kind, init) {
    const transceiver = original.call(this, kind, init);
    const video = RTCRtpReceiver.getCapabilities('video').codecs;
    const wanted = (codec) => codec.mimeType === `video/${name}` && fmtp.every((part) => codec.sdpFmtpLine?.includes(part));
    if (kind === 'video') transceiver.setCodecPreferences(video.filter((codec) => wanted(codec) || codec.mimeType === 'video/rtx'));
    return transceiver;
  };
}

/** A watch page in a browser with these video codecs only. */
async function watchWith(scenario, stream, codec) {
  const viewer = await scenario.watch(stream, { auto: '0' });
  await viewer.page.evaluate(offerOnly, codec);
  await viewer.page.click('#toggle');
  return viewer;
}

const FIREFOX_LIKE = { name: 'H264', fmtp: ['profile-level-id=42e01f', 'packetization-mode=1'] };
const VP9_ONLY = { name: 'VP9', fmtp: ['profile-id=0'] };
const H264_ONLY = { name: 'H264', fmtp: [] };

suite('codecs', { ice: 'lite' }, (test) => {
  // F-01
  test("Chromium's H264 is seen by viewers that have Constrained Baseline only", async (scenario) => {
    const publisher = await scenario.publish('h264', { codec: 'H264' });
    await scenario.publishing(publisher);
    for (const viewer of [await watchWith(scenario, 'h264', FIREFOX_LIKE), await scenario.watch('h264')]) {
      await scenario.firstFrame(viewer);
      await expectFlow(publisher, viewer);
      assert.equal((await viewer.figures()).received.codec, 'video/H264');
      assert.equal(await viewer.page.isVisible('#notice'), false, 'nothing is missing');
    }
    const { tracks } = await scenario.server.stream('h264');
    assert.match(tracks.find(({ kind }) => kind === 'video').profile, /^Constrained Baseline \(42/);
  });

  // F-26
  test('a viewer whose browser lacks the codec hears the stream and reads why it sees none', async (scenario) => {
    const publisher = await scenario.publish('refused', { codec: 'H264' });
    await scenario.publishing(publisher);
    await poll('the server to know the codec', async () => (await scenario.server.stream('refused')).tracks.some(({ codec }) => codec === 'H264'));
    const viewer = await watchWith(scenario, 'refused', VP9_ONLY);
    await viewer.until('to hear it', ({ received }) => received.audio?.packetsReceived > 50);
    const notice = await viewer.page.innerText('#notice');
    assert.match(notice, /There is no picture: this browser cannot play the stream's video\./);
    assert.match(notice, /H264 Constrained Baseline/, 'what the stream is');
    assert.match(notice, /VP9 profile 0/, 'what the browser has');
    const [session] = await scenario.server.sessionsOf('refused', 'viewer');
    const signaling = session.stages.find(({ stage }) => stage === 'signaling');
    assert.deepEqual([signaling.state, signaling.warnings.map(({ code, kind }) => [code, kind])], ['done', [['codec-refused', 'video']]]);
    assert.equal(await scenario.server.counter('sluice_session_warnings_total'), 1);
    await viewer.page.screenshot({ path: outputFile('page-watch-refused-codec.png'), fullPage: true });
  });

  // F-02
  test('a viewer goes on when the publisher returns with another codec', async (scenario) => {
    const first = await scenario.publish('returns', { codec: 'H264' });
    await scenario.publishing(first);
    const viewer = await scenario.watch('returns');
    await scenario.firstFrame(viewer);
    await first.page.evaluate(() => window.sluice.stop());
    await poll('the stream to be free', async () => !(await scenario.server.stream('returns')).publisher);
    const second = await scenario.publish('returns', { codec: 'VP8' });
    await scenario.publishing(second);
    await viewer.until('to play VP8', ({ received }) => received.codec === 'video/VP8');
    await expectFlow(second, viewer);
    assert.equal((await viewer.seen()).posts.length, 1, 'in the same session');
  });

  // F-02
  test('a viewer that cannot go on joins anew by itself and reads why it sees nothing', async (scenario) => {
    const first = await scenario.publish('changes', { codec: 'H264' });
    await scenario.publishing(first);
    const viewer = await watchWith(scenario, 'changes', H264_ONLY);
    await scenario.firstFrame(viewer);
    await first.page.evaluate(() => window.sluice.stop());
    await poll('the stream to be free', async () => !(await scenario.server.stream('changes')).publisher);
    const second = await scenario.publish('changes', { codec: 'VP8' });
    await scenario.publishing(second);
    const ended = await poll('the session to end', async () => {
      const sessions = await scenario.server.sessionsOf('changes', 'viewer');
      return sessions.find(({ reason }) => reason === 'unsupported-codec');
    });
    assert.match(ended.stages.find(({ stage }) => stage === 'media').detail, /VP8.*H264/);
    await poll('the page to join anew', async () => (await viewer.seen()).posts.length > 1);
    await viewer.until('to hear it', ({ received }) => received.audio?.packetsReceived > 50);
    assert.match(await viewer.page.innerText('#notice'), /this browser cannot play the stream's video/);
  });
});
