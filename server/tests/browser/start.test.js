// Viewers that join while the publisher's last keyframe lies seconds back.

import assert from 'node:assert/strict';

import { median } from './measure.js';
import { overTime, poll } from './poll.js';
import { suite } from './scenario.js';

const VIEWERS = 3;
const KEYFRAME_AGE = 3000;
const REQUESTS = 'sluice_shard_keyframe_requests_sent_total';

suite('instant start', {}, (test) => {
  test('viewers of an old keyframe have video at once, are live soon, and cost the publisher nothing', async (scenario) => {
    // The pages are there before: what counts is the time from play.
    const viewers = [];
    while (viewers.length < VIEWERS) viewers.push(await scenario.watch('instant', { auto: '0' }));
    const publisher = await scenario.publish('instant');
    await scenario.publishing(publisher);
    let keyframe;
    await poll('the last keyframe to be old', async () => {
      const { at, sent: { video } } = await publisher.figures();
      if (video.keyFramesEncoded !== keyframe?.count) keyframe = { count: video.keyFramesEncoded, at };
      return at - keyframe.at >= KEYFRAME_AGE;
    });

    const requests = await scenario.server.counter(REQUESTS);
    const starts = [];
    for (const viewer of viewers) {
      await viewer.page.evaluate(() => void window.sluice.start());
      starts.push(await scenario.firstFrame(viewer));
    }
    const { at: joined } = await viewers.at(-1).figures();
    const asked = (await scenario.server.counter(REQUESTS)) - requests;
    const { sent } = await publisher.figures();
    console.log(`first frames after ${starts.map(Math.round).join(', ')} ms, keyframes requested: ${asked}`);
    assert.equal(asked, 0, 'the cache serves them all');
    assert.equal(sent.video.keyFramesEncoded, keyframe.count, 'no keyframe was encoded in between');
    assert.ok(median(starts) <= 300, `the median of the first frames is ${Math.round(median(starts))} ms`);

    // A fast start, with its compressed timestamps, takes 1.5 s at most: that of the last viewer has been played by then.
    await viewers.at(-1).until('to have decoded what was cached', ({ at, received }) => at - joined > 2500 && received.video.framesDecoded > 20);
    const sample = () => Promise.all([publisher, ...viewers].map((peer) => peer.figures()));
    const [before, later] = await overTime(3000, sample);
    const frames = later[0].sent.video.framesSent - before[0].sent.video.framesSent;
    const told = viewers.map((viewer, index) => {
      const [from, to] = [before[index + 1].received.video, later[index + 1].received.video];
      const decoded = to.framesDecoded - from.framesDecoded;
      const buffered = 1000 * (to.jitterBufferDelay - from.jitterBufferDelay) / (to.jitterBufferEmittedCount - from.jitterBufferEmittedCount);
      return { name: viewer.name, decoded, buffered, freezes: to.freezeCount, lost: to.packetsLost, plis: to.pliCount };
    });
    console.log(`${frames} frames sent; ${told.map((one) => `${one.name}: ${one.decoded} decoded, ${Math.round(one.buffered)} ms in the jitter buffer, ${one.freezes} freezes`).join('; ')}`);
    for (const { name, decoded, buffered, freezes, lost, plis } of told) {
      assert.ok(Math.abs(decoded - frames) <= 0.1 * frames, `${name} decoded ${decoded} of the ${frames} frames sent`);
      assert.ok(buffered < 150, `${name} is ${Math.round(buffered)} ms late`);
      assert.deepEqual({ freezes, lost, plis }, { freezes: 0, lost: 0, plis: 0 }, name);
    }
  });
});
