// What people read on the pages when a stage fails: each reason code there is, and media that stop and return for real.

import assert from 'node:assert/strict';

import { outputFile, suite } from './scenario.js';
import { poll } from './poll.js';

/** Stage, reason and text that a page shows. */
const shown = (peer) =>
  peer.page.evaluate(() => ({
    failed: [...document.querySelectorAll('#stages [data-state=failed]')].map((item) => [item.dataset.stage, item.querySelector('small').textContent]),
    alert: document.getElementById('alert').hidden ? '' : document.getElementById('alert').textContent,
  }));

suite('ledger', { ice: 'lite', args: ['--media-gap', '2s'] }, (test) => {
  // F-07
  test('both pages say that the video stopped, and that it is back', async (scenario) => {
    const publisher = await scenario.publish('stops');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('stops');
    await scenario.firstFrame(viewer);
    const done = async (peer) => (await peer.said()).stages.every(({ state }) => state === 'done');
    for (const peer of [publisher, viewer]) await poll(`${peer.name}'s stages to be done`, () => done(peer));
    assert.equal((await scenario.server.stream('stops')).live, true);

    const videoSender = "window.sluice.pc.getSenders().find(({ track }) => track?.kind === 'video')";
    await publisher.page.evaluate(`(async () => { const sender = ${videoSender}; window.__video = [sender, sender.track]; await sender.replaceTrack(null); })()`);
    for (const peer of [publisher, viewer]) {
      const { failed, alert } = await poll(`${peer.name} to say that the video stopped`, async () => {
        const seen = await shown(peer);
        return seen.failed.length > 0 && seen;
      });
      assert.deepEqual(failed, [['media', 'media-stopped']], peer.name);
      assert.match(alert, /video stopped/, peer.name);
      await peer.page.screenshot({ path: outputFile(`page-media-stopped-${peer.name.split(' ')[0]}.png`), fullPage: true });
    }
    assert.equal((await scenario.server.stream('stops')).live, false);

    await publisher.page.evaluate('window.__video[0].replaceTrack(window.__video[1])');
    for (const peer of [publisher, viewer]) {
      await poll(`${peer.name} to be well again`, () => done(peer));
      assert.equal((await shown(peer)).alert, '', peer.name);
    }
    assert.equal((await scenario.server.stream('stops')).live, true);
  });

  test('a page shows every reason code with its facts and its advice', async (scenario) => {
    // The server counts ends by every reason from its start.
    const metrics = await (await fetch(`${scenario.server.admin}/metrics`)).text();
    const reasons = [...metrics.matchAll(/^sluice_sessions_ended_total\{reason="([a-z-]+)",role="viewer"\}/gm)].map(([, reason]) => reason);
    assert.ok(reasons.includes('no-valid-check') && reasons.includes('media-stopped'), reasons.join());

    const publisher = await scenario.publish('reasons');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('reasons');
    await scenario.firstFrame(viewer);
    let failing = null;
    await viewer.page.route('**/stages', async (route) => {
      const response = await route.fetch();
      const ledger = await response.json();
      if (failing) Object.assign(ledger.stages.find(({ stage }) => stage === failing.stage), failing);
      await route.fulfill({ response, json: ledger });
    });
    const stages = ['ice', 'dtls', 'fingerprint', 'srtp', 'media'];
    for (const [index, reason] of reasons.entries()) {
      const stage = stages[index % stages.length];
      failing = { stage, state: 'failed', reason, detail: `facts of ${reason}`, advice: `advice on ${reason}` };
      const { failed, alert } = await poll(`the page to show ${reason}`, async () => {
        const seen = await shown(viewer);
        return seen.failed.some(([, text]) => text === reason) && seen;
      });
      assert.deepEqual(failed, [[stage, reason]]);
      assert.equal(alert, `${stage}: ${reason}. facts of ${reason}. advice on ${reason}`);
    }
    failing = null;
    await poll('the page to be well again', async () => {
      const { failed, alert } = await shown(viewer);
      return failed.length === 0 && alert === '';
    });
  });
});
