// A viewer's page on a bad link; the publisher's is good.

import assert from 'node:assert/strict';

import { longestGap } from './measure.js';
import { overTime, poll } from './poll.js';
import { suite } from './scenario.js';

const MEASURED = 20_000;

suite('impaired', { shards: 1 }, (test) => {
  for (const [loss, residual, longest] of [[5, 0.001, 500], [10, 0.005, 750]]) test(`a viewer behind ${loss} % loss and 50 ms each way sees a picture that goes on`, async (scenario) => {
    const relay = await scenario.relay('--loss', `${loss}`, '--delay', '50');
    const asked = await scenario.server.counter('sluice_shard_nacks_received_total');
    const answered = await scenario.server.counter('sluice_shard_rtp_retransmitted_packets_total');
    const publisher = await scenario.publish(`lossy-${loss}`);
    await scenario.publishing(publisher);
    const viewer = await scenario.watch(`lossy-${loss}`, { through: relay });
    const first = await scenario.firstFrame(viewer);

    const sample = async () => ({ from: await publisher.figures(), to: await viewer.figures() });
    const [before, later] = await overTime(MEASURED, sample);
    const { frames } = await viewer.seen();
    // What was lost a moment ago gets its time to be sent again, on a link that loses no more.
    const { down } = await relay.counts();
    await relay.link({ both: { loss: 0 } });
    const [, { received: { video: end } }] = await overTime(1000, () => viewer.figures());
    // A packet that came as RTX still counts as lost on the SSRC where it was missed.
    const missing = end.packetsLost - end.retransmittedPacketsReceived;
    // Some figures do not exist before they are above 0.
    const of = (name) => (later.to.received.video[name] ?? 0) - (before.to.received.video[name] ?? 0);
    const sent = later.from.sent.video.framesSent - before.from.sent.video.framesSent;
    const gap = longestGap(frames, before.to.at, later.to.at);
    const figures = {
      'first frame, ms': Math.round(first),
      'frames sent': sent,
      'frames decoded': of('framesDecoded'),
      'packets received': end.packetsReceived,
      'packets lost': end.packetsLost,
      'packets sent again': end.retransmittedPacketsReceived,
      'packets lost for good': missing,
      'lost by the link': down.lost,
      freezes: of('freezeCount'),
      'freezes, ms': Math.round(1000 * of('totalFreezesDuration')),
      'longest gap, ms': Math.round(gap),
      'keyframe requests': of('pliCount'),
      'asked for again': await scenario.server.counter('sluice_shard_nacks_received_total') - asked,
      'answered': await scenario.server.counter('sluice_shard_rtp_retransmitted_packets_total') - answered,
    };
    console.log(Object.entries(figures).map(([name, value]) => `${name}: ${value}`).join(', '));

    assert.ok(down.lost > 0.006 * loss * down.received, 'the link lost something');
    assert.ok(of('framesDecoded') >= 0.95 * sent, `decoded ${of('framesDecoded')} of the ${sent} frames sent`);
    assert.ok(missing <= residual * end.packetsReceived, `${missing} of ${end.packetsReceived} packets lost for good`);
    assert.ok(gap <= longest, `no new picture for ${Math.round(gap)} ms`);
  });

  test('a viewer whose NAT forgets its port sees the picture go on', async (scenario) => {
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
});
