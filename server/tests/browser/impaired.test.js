// A viewer's page on a bad link; the publisher's is good.

import assert from 'node:assert/strict';

import { longestGap, longestGaps, missing } from './measure.js';
import { overTime, poll } from './poll.js';
import { suite } from './scenario.js';

const MEASURED = 60_000;
/** Of so many windows of the measured time one may have a longer time without a new frame: the machine pauses. */
const WINDOWS = 6;
const DELAY = 50;
/** Random loss each way in %, what may stay lost of it, and the longest time without a new frame in milliseconds. */
const LINKS = [{ loss: 5, residual: 0.001, longest: 500 }, { loss: 10, residual: 0.005, longest: 1500 }];

/** What the viewer has once everything that was lost before had its time to be sent again, on a link that loses nothing. */
async function settled(viewer, relay) {
  await relay.link({ both: { loss: 0 } });
  const [, later] = await overTime(1000, () => viewer.figures());
  return later;
}

suite('impaired', { shards: 1 }, (test) => {
  test('viewers behind 5 and 10 % loss and 50 ms each way see video that goes on', async (scenario) => {
    const publisher = await scenario.publish('lossy');
    await scenario.publishing(publisher);
    const viewers = await Promise.all(LINKS.map(async (link) => {
      const relay = await scenario.relay('--loss', `${link.loss}`, '--delay', `${DELAY}`);
      const viewer = await scenario.watch('lossy', { through: relay });
      const first = await scenario.firstFrame(viewer);
      // A viewer that lost its first packets restarts from the cached keyframe, and nobody needs what it lost before.
      const before = await settled(viewer, relay);
      await relay.link({ both: { loss: link.loss } });
      return { ...link, relay, viewer, first, before };
    }));
    const both = () => Promise.all(viewers.map(({ viewer }) => viewer.figures()));
    const [from, until] = await overTime(MEASURED, async () => ({ sent: (await publisher.figures()).sent.video, seen: await both() }));
    const sent = until.sent.framesSent - from.sent.framesSent;

    for (const [index, { loss, residual, longest, relay, viewer, first, before }] of viewers.entries()) {
      const { frames } = await viewer.seen();
      const { down } = await relay.counts();
      const end = await settled(viewer, relay);
      // Some figures do not exist before they are above 0.
      const of = (name, begin = from.seen[index], finish = until.seen[index]) => (finish.received.video[name] ?? 0) - (begin.received.video[name] ?? 0);
      const gaps = longestGaps(frames, from.seen[index].at, until.seen[index].at, WINDOWS).map(Math.round);
      const received = of('packetsReceived', before, end);
      const lost = missing(end) - missing(before);
      const figures = {
        'first frame, ms': Math.round(first),
        'frames sent': sent,
        'frames decoded': of('framesDecoded'),
        'packets received': received,
        'packets lost': of('packetsLost', before, end),
        'packets sent again': of('retransmittedPacketsReceived', before, end),
        'packets lost for good': lost,
        'lost by the link': down.lost,
        freezes: of('freezeCount'),
        'freezes, ms': Math.round(1000 * of('totalFreezesDuration')),
        'longest gaps, ms': gaps.join(' '),
        'keyframe requests': of('pliCount'),
      };
      console.log(`${loss} %: ${Object.entries(figures).map(([name, value]) => `${name}: ${value}`).join(', ')}`);

      assert.ok(down.lost > 0.006 * loss * down.received, 'the link lost something');
      assert.ok(of('framesDecoded') >= 0.95 * sent, `${loss} %: decoded ${of('framesDecoded')} of the ${sent} frames sent`);
      assert.ok(lost <= residual * received, `${loss} %: ${lost} of ${received} packets lost for good`);
      const good = gaps.filter((gap) => gap <= longest);
      assert.ok(good.length >= WINDOWS - 1, `${loss} %: no new frame for ${gaps.join(', ')} ms in the windows of the time`);
    }
  });

  // COD-04
  test('audio that is sent twice is heard where a tenth of it is lost', async (scenario) => {
    const relay = await scenario.relay('--loss', '10');
    const publisher = await scenario.publish('twice', { sound: 'red' });
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('twice', { through: relay });
    await scenario.firstFrame(viewer);
    await viewer.unmute();
    const [before, later] = await overTime(10_000, async () => (await viewer.figures()).received.audio);
    const of = (name) => later[name] - before[name];
    const concealed = of('concealedSamples') / of('totalSamplesReceived');
    console.log(`lost: ${of('packetsLost')} of ${of('packetsReceived') + of('packetsLost')} packets, concealed: ${(100 * concealed).toFixed(1)} %`);
    // Chromium's figures call it Opus on both sides.
    const { tracks } = await scenario.server.stream('twice');
    assert.equal(tracks.find(({ kind }) => kind === 'audio').codec, 'red');
    assert.ok(of('packetsDiscarded') > 0.5 * of('packetsReceived'), 'the second copies are not needed where the first ones came');
    assert.ok(of('packetsLost') > 0.05 * of('packetsReceived'), 'the link lost something');
    assert.ok(concealed < 0.05, `${(100 * concealed).toFixed(1)} % of the audio is made up`);
  });

  test('a viewer whose NAT forgets its port sees the video go on', async (scenario) => {
    const relay = await scenario.relay();
    const publisher = await scenario.publish('forgotten');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('forgotten', { through: relay });
    await scenario.firstFrame(viewer);
    await relay.rebind();
    await poll('another port', async () => (await relay.counts()).rebound > 0);
    const { received } = await viewer.figures();
    await viewer.until('to see much more', (now) => now.received.video.framesDecoded > received.video.framesDecoded + 60);
    assert.equal((await viewer.seen()).peers, 1, 'without another session');
  });

  // H1, ICE-19: long before Chromium's own next check, which may be 2.5 s away, the first packet from the new port is asked.
  test('a viewer and a publisher whose NAT gives them another port go on within a second', async (scenario) => {
    const [up, down] = [await scenario.relay(), await scenario.relay()];
    const publisher = await scenario.publish('moved', { through: up });
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('moved', { through: down });
    await scenario.firstFrame(viewer);
    // Checks are frequent at first.
    await viewer.until('to see some seconds', (now) => now.received.video.framesDecoded > 100);
    for (const [name, relay] of [['viewer', down], ['publisher', up], ['viewer', down], ['publisher', up]]) {
      const before = (await relay.counts()).rebound;
      const { at } = await viewer.figures();
      await relay.rebind();
      await poll('another port', async () => (await relay.counts()).rebound > before);
      const [, later] = await overTime(3000, () => viewer.figures());
      const { frames } = await viewer.seen();
      const gap = longestGap(frames, at, later.at);
      console.log(`the ${name}'s port changed: no new frame for ${Math.round(gap)} ms`);
      assert.ok(gap <= 1000, `the ${name}'s port changed: no new frame for ${Math.round(gap)} ms`);
    }
    assert.equal((await viewer.seen()).peers, 1, 'without another session');
  });
});
