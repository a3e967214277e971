// Each codec from a publisher's page through the server to a viewer's page.

import assert from 'node:assert/strict';

import { expectFlow, expectLedgerDone, expectQuickStart, expectSecure } from './expect.js';
import { suite } from './scenario.js';

suite('media', {}, (test) => {
  for (const codec of ['VP8', 'VP9', 'H264', 'AV1']) {
    test(`${codec} and Opus are seen and heard`, async (scenario) => {
      const stream = codec.toLowerCase();
      const publisher = await scenario.publish(stream, { codec });
      const { sent } = await scenario.publishing(publisher);
      assert.equal(sent.codec, `video/${codec}`);

      const viewer = await scenario.watch(stream);
      await expectQuickStart(scenario, viewer);
      await expectFlow(publisher, viewer);

      const [from, to] = [await publisher.figures(), await viewer.figures()];
      assert.equal(to.received.codec, `video/${codec}`);
      expectSecure(publisher, from);
      expectSecure(viewer, to);
      await expectLedgerDone(scenario.server, stream, 'publisher');
      await expectLedgerDone(scenario.server, stream, 'viewer');
    });
  }

  test('reports of both directions reach the pages', async (scenario) => {
    const publisher = await scenario.publish('reports');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('reports');
    const { received } = await viewer.until('to get sender reports', ({ received: { reported } }) => reported.video && reported.audio);
    assert.ok(received.reported.video.packetsSent > 0);
    const { sent } = await publisher.until('to get receiver reports', ({ sent: { reported } }) => reported.video && reported.audio);
    assert.equal(sent.reported.video.packetsLost, 0);
    assert.equal(sent.reported.audio.packetsLost, 0);
  });
});
