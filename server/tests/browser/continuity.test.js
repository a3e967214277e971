// Breaks on the publisher's side that a viewer's receiver is not to notice as errors.

import assert from 'node:assert/strict';

import { expectFlow } from './expect.js';
import { lipOffset, median } from './measure.js';
import { overTime, poll, series } from './poll.js';
import { suite } from './scenario.js';

const PAUSE = 30_000;
/** Offset of audio and video that nobody notices, in milliseconds. */
const IN_SYNC = 45;

/** Waits until Chromium has brought audio and video together, as it does step by step, and returns their offset. */
function inSync(viewer, what) {
  return poll(`audio and video to be in sync ${what}`, async () => {
    const offset = median((await series(1000, 200, () => viewer.figures())).map(lipOffset));
    console.log(`${what}: the video is ${Math.round(offset)} ms ahead of the audio`);
    return Math.abs(offset) <= IN_SYNC && { offset };
  }, { timeout: 20_000 });
}

/** A publisher, and a viewer that hears and sees it in sync. */
async function watched(scenario, stream) {
  const publisher = await scenario.publish(stream);
  await scenario.publishing(publisher);
  const viewer = await scenario.watch(stream);
  await scenario.firstFrame(viewer);
  await viewer.unmute();
  await viewer.until('to get sender reports', ({ received: { video, audio } }) => video.estimatedPlayoutTimestamp && audio.estimatedPlayoutTimestamp);
  await inSync(viewer, 'before');
  return { publisher, viewer, before: await viewer.figures() };
}

/** It is the same receiver with the same decoder, which missed nothing and complained about nothing. */
async function expectNoBreak(scenario, stream, viewer, before) {
  const [was, is] = [before.received, (await viewer.figures()).received];
  assert.equal(is.video.decoderImplementation, was.video.decoderImplementation, 'the same decoder');
  assert.equal(is.video.framesDropped - was.video.framesDropped, 0, 'no frame is dropped');
  assert.equal(is.video.packetsLost + is.audio.packetsLost, 0, 'the numbers go on');
  assert.ok(is.video.keyFramesDecoded - was.video.keyFramesDecoded <= 2, `${is.video.keyFramesDecoded} keyframes`);
  // Chromium asks once when nothing has come for some seconds.
  assert.ok(is.video.pliCount - was.video.pliCount <= 1, `${is.video.pliCount} keyframe requests`);
  assert.equal((await viewer.seen()).peers, 1, 'one peer connection');
  assert.equal((await scenario.server.sessionsOf(stream, 'viewer')).length, 1, 'one session');
}

// One kind of ICE is enough: it has no part in what is tested.
suite('continuity', { ice: 'lite' }, (test) => {
  test('a publisher that pauses both tracks is seen and heard again in sync', async (scenario) => {
    const { publisher, viewer, before } = await watched(scenario, 'pause');
    await publisher.page.evaluate(() => Promise.all(window.sluice.pc.getSenders().map((sender) => {
      sender.paused = sender.track;
      return sender.replaceTrack(null);
    })));
    const [begun, paused] = await overTime(PAUSE, () => viewer.figures());
    assert.ok(paused.received.video.framesDecoded - begun.received.video.framesDecoded <= 20, 'nothing is sent during the pause');
    await publisher.page.evaluate(() => Promise.all(window.sluice.pc.getSenders().map((sender) => sender.replaceTrack(sender.paused))));
    await viewer.until('to see the video again', ({ received }) => received.video.framesDecoded > paused.received.video.framesDecoded, { timeout: 2000 });
    await inSync(viewer, 'after the pause');
    await expectFlow(publisher, viewer, 2000);
    await expectNoBreak(scenario, 'pause', viewer, before);
  });

  test('a publisher that restarts is seen and heard in sync by the same receiver', async (scenario) => {
    const { publisher, viewer, before } = await watched(scenario, 'restart');
    await publisher.page.reload();
    await scenario.publishing(publisher);
    await viewer.until('to see the video again', ({ received }) => received.video.framesDecoded > before.received.video.framesDecoded + 20);
    await inSync(viewer, 'after the restart');
    await expectFlow(publisher, viewer, 2000);
    await expectNoBreak(scenario, 'restart', viewer, before);
  });
});
