// A viewer whose link carries half of the stream, beside one that has no such trouble.

import assert from 'node:assert/strict';

import { longestGap, percentile } from './measure.js';
import { overTime, poll, series } from './poll.js';
import { suite } from './scenario.js';

const REQUESTS = 'sluice_shard_keyframe_requests_sent_total';
const CONVERGENCE = 5000;
const MEASURED = 12_000;

// One kind of ICE is enough: it has no part in what is tested, and the test takes half a minute.
suite('congestion', { ice: 'lite', shards: 1 }, (test) => {
  test('a viewer with half the rate has no long queue, goes on hearing, and disturbs nobody', async (scenario) => {
    const relay = await scenario.relay();
    const publisher = await scenario.publish('half', { source: 'pattern', bitrate: '2000' });
    await scenario.publishing(publisher);
    const direct = await scenario.watch('half');
    const narrow = await scenario.watch('half', { through: relay });
    await Promise.all([direct, narrow].map((viewer) => scenario.firstFrame(viewer)));
    await Promise.all([direct, narrow].map((viewer) => viewer.unmute()));
    const bits = ({ down }) => 8 * (down.received_bytes + 28 * down.received);
    // The encoder's rate has to be there, and the probes of the beginning be over.
    await overTime(4000, async () => {});
    const [early, now] = await overTime(4000, async () => ({ at: Date.now(), counts: await relay.counts() }));
    const whole = (bits(now.counts) - bits(early.counts)) / (now.at - early.at);

    const sample = async () => {
      const [counts, to, other, from, session] = await Promise.all([
        relay.counts(), narrow.figures(), direct.figures(), publisher.figures(),
        scenario.server.sessionsOf('half', 'viewer').then((all) => all.at(-1)),
      ]);
      return { counts, to, other, from, stats: session.stats, requests: await scenario.server.counter(REQUESTS) };
    };
    await relay.link({ down: { rate: whole / 2, queue: 3000 } });
    const converging = await series(CONVERGENCE, 200, sample);
    const steady = await series(MEASURED, 200, sample);
    // Every 200 ms: how long packets waited on average in front of the bottleneck.
    const queue = (samples) => samples.slice(1).map(({ counts: { down } }, index) => {
      const { down: before } = samples[index].counts;
      return (down.queued_us - before.queued_us) / 1000 / Math.max(1, down.received - before.received);
    });
    const [begin, end] = [steady[0], steady.at(-1)];
    const of = (read) => read(end) - read(begin);
    const audio = (name) => of(({ to }) => to.received.audio[name]);
    // The longest ones are those of a machine that pauses.
    const longest = percentile(queue(steady), 0.95);
    const seen = percentile(steady.map(({ stats }) => stats.queueing_delay), 0.95);
    const decoded = of(({ to }) => to.received.video.framesDecoded);
    const asked = of(({ requests }) => requests);
    const figures = {
      'rate of the stream, kbit/s': Math.round(whole),
      'longest queue while converging, ms': Math.round(Math.max(...queue(converging))),
      'longest queue, ms': Math.round(Math.max(...queue(steady))),
      '95th percentile of it, ms': Math.round(longest),
      'by the server, ms': Math.round(1000 * seen),
      'estimates, kbit/s': steady.filter((_, index) => index % 6 === 0).map(({ stats }) => Math.round(stats.available_outgoing_bitrate / 1000)).join(' '),
      'carried, kbit/s': Math.round(8 * of(({ counts }) => counts.down.forwarded_bytes + 28 * counts.down.forwarded) / MEASURED),
      'dropped by the queue': end.counts.down.dropped_by_queue,
      'video packets lost': of(({ to }) => to.received.video.packetsLost),
      'audio packets lost': audio('packetsLost'),
      'samples concealed, %': 100 * audio('concealedSamples') / audio('totalSamplesReceived'),
      'frames decoded': decoded,
      'of': of(({ from }) => from.sent.video.framesSent),
      'longest gap, ms': Math.round(longestGap((await narrow.seen()).frames, begin.to.at, end.to.at)),
      'dropped late by the server': of(({ stats }) => stats.rtp_shed),
      'keyframe requests to the publisher': asked,
      'while converging': begin.requests - converging[0].requests,
      'frames of the other': of(({ other }) => other.received.video.framesDecoded),
      'longest gap of the other, ms': Math.round(longestGap((await direct.seen()).frames, begin.to.at, end.to.at)),
      'freezes of the other': end.other.received.video.freezeCount - converging[0].other.received.video.freezeCount,
    };
    console.log(Object.entries(figures).map(([name, value]) => `${name}: ${value}`).join(', '));

    assert.ok(longest < 300, `packets waited ${Math.round(longest)} ms in front of the bottleneck`);
    assert.ok(seen < 0.3, 'the server sees no longer queue either');
    assert.equal(end.counts.down.dropped_by_queue, 0, 'nothing is sent that the link has no room for');
    assert.equal(audio('packetsLost'), 0, 'no audio is dropped');
    assert.ok(audio('concealedSamples') <= 0.01 * audio('totalSamplesReceived'), 'the audio goes on');
    // Without a smaller stream to fall back to, whole keyframes are all that fits.
    assert.ok(decoded >= MEASURED / 6000, `${decoded} frames in ${MEASURED} ms`);
    assert.ok(asked <= MEASURED / 2000, `the publisher was asked for ${asked} keyframes`);
    const sent = end.from.sent.video.framesSent - begin.from.sent.video.framesSent;
    const other = end.other.received.video;
    assert.ok(of(({ other }) => other.received.video.framesDecoded) >= 0.95 * sent, 'the other sees every frame');
    assert.equal(other.packetsLost + end.other.received.audio.packetsLost, 0, 'the other loses nothing');
    assert.equal(other.freezeCount, converging[0].other.received.video.freezeCount, 'the other sees no freeze');

    const lifted = Date.now();
    await relay.link({ down: { rate: 0 } });
    await poll('the whole stream', async () => {
      const [before, later] = await overTime(1500, async () => [await publisher.figures(), await narrow.figures()]);
      return later[1].received.video.framesDecoded - before[1].received.video.framesDecoded
        >= 0.9 * (later[0].sent.video.framesSent - before[0].sent.video.framesSent);
    }, { timeout: 15_000 });
    const recovered = Date.now() - lifted;
    console.log(`whole again after ${recovered} ms at most`);
    assert.ok(recovered <= 10_000 + 1500, `whole again after ${recovered} ms`);
  });
});
