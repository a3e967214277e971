// RTCP-15: congestion control feedback of RFC 8888 with Chromium, which has it behind a field trial, and ECT(1) towards a viewer.

import assert from 'node:assert/strict';

import { expectFlow } from './expect.js';
import { overTime, poll } from './poll.js';
import { suite } from './scenario.js';

const TRIAL = '--force-fieldtrials=WebRTC-RFC8888CongestionControlFeedback/Enabled,offer:true/';

/** The figures that are about feedback and marks. */
function marks(peer) {
  return peer.page.evaluate(async () => {
    const reports = [...(await window.sluice.pc.getStats()).values()];
    const of = (type) => reports.filter((report) => report.type === type);
    const sum = (type, name) => of(type).reduce((total, report) => total + (report[name] ?? 0), 0);
    const [transport] = of('transport');
    const pair = reports.find((report) => report.id === transport?.selectedCandidatePairId);
    return {
      answer: window.sluice.pc.remoteDescription.sdp,
      heard: transport?.ccfbMessagesReceived ?? 0,
      ect1: sum('inbound-rtp', 'packetsReceivedWithEct1'),
      received: sum('inbound-rtp', 'packetsReceived'),
      estimate: pair?.availableOutgoingBitrate,
    };
  });
}

suite('ccfb', { ice: 'lite', shards: 1, flags: [TRIAL], args: ['--l4s'] }, (test) => {
  test('feedback goes by RFC 8888 both ways, and the viewer gets its media as ECT(1)', async (scenario) => {
    const publisher = await scenario.publish('marked', { source: 'pattern', bitrate: '2000' });
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('marked');
    await scenario.firstFrame(viewer);
    for (const peer of [publisher, viewer]) {
      const { answer } = await marks(peer);
      // Chromium writes the answer's wildcard as a line for each format.
      const sections = answer.split(/^m=/m).slice(1);
      assert.ok(sections.length === 2 && sections.every((section) => section.includes(' ack ccfb')), answer);
      assert.doesNotMatch(answer, /transport-cc|transport-wide-cc|goog-remb/);
    }
    // The publisher hears of its packets, and its estimate leaves the start of 300 kbit/s behind.
    const sent = await poll('the publisher to know its path', async () => {
      const now = await marks(publisher);
      return now.heard >= 20 && now.estimate >= 1_500_000 && now;
    }, { timeout: 30_000 });
    // The marks go on only while the viewer tells of them. The server makes an estimate of it.
    const early = await poll('marks at the viewer', async () => {
      const now = await marks(viewer);
      return now.ect1 >= 100 && now;
    }, { timeout: 30_000 });
    const [, seen] = await overTime(4000, () => marks(viewer));
    assert.ok(seen.ect1 >= early.ect1 + 200, `${early.ect1} packets with ECT(1), and ${seen.ect1} 4 s later`);
    const session = await poll('an estimate of the viewer\'s path', async () => {
      const [found] = await scenario.server.sessionsOf('marked', 'viewer');
      return found.stats.available_outgoing_bitrate >= 1_500_000 && found;
    });
    console.log(`publisher: ${sent.heard} messages, ${Math.round(sent.estimate / 1000)} kbit/s; viewer: `
      + `${seen.ect1} of ${seen.received} packets with ECT(1), ${Math.round(session.stats.available_outgoing_bitrate / 1000)} kbit/s`);
    await expectFlow(publisher, viewer);
  });
});
