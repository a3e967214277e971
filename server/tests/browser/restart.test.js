// ICE restarts by PATCH (RFC 9725 §4.3.3), as Chromium does them and as the pages do by themselves.

import assert from 'node:assert/strict';

import { expectFlow } from './expect.js';
import { poll } from './poll.js';
import { suite } from './scenario.js';

/** What changes with a restart, and what must not. */
async function transport(peer) {
  return peer.page.evaluate(async () => {
    const { pc, restarts, retries } = window.sluice;
    const reports = [...(await pc.getStats()).values()];
    const { iceLocalUsernameFragment: ufrag, localCertificateId } = reports.find(({ type }) => type === 'transport');
    // Statistics that were first read before the handshake have no remote certificate until an ICE restart.
    const remote = pc.getTransceivers()[0].receiver.transport.getRemoteCertificates();
    const certificates = [localCertificateId, ...remote.map((bytes) => new Uint8Array(bytes).join())];
    return { ufrag, certificates, restarts, retries };
  });
}

/** The longest time between two frames that a viewer showed since a moment, in milliseconds. */
async function longestGap(viewer, since) {
  const { frames } = await viewer.seen();
  const shown = [since, ...frames.filter((at) => at > since)];
  return Math.max(...shown.slice(1).map((at, index) => at - shown[index]));
}

// TRK-09, TRK-10, TRK-12
suite('ICE restart', {}, (test) => {
  test('publisher and viewer restart ICE with media flowing, and nothing is lost', async (scenario) => {
    const publisher = await scenario.publish('restart');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('restart');
    await scenario.firstFrame(viewer);
    await viewer.until('to decode for a while', ({ received }) => received.video?.framesDecoded >= 20);
    for (const [peer, role] of [[publisher, 'publisher'], [viewer, 'viewer']]) {
      const before = await transport(peer);
      assert.equal(before.certificates.length, 2);
      const begun = (await viewer.figures()).at;
      // What a browser says when it goes from one network to another.
      await peer.page.evaluate(() => navigator.connection.dispatchEvent(new Event('change')));
      await poll(`the ${role}'s restart to complete`, async () => {
        const [session] = await scenario.server.sessionsOf('restart', role);
        return session.stats.ice_restarts === 1;
      });
      await expectFlow(publisher, viewer, 2000);
      const after = await transport(peer);
      assert.notEqual(after.ufrag, before.ufrag);
      assert.deepEqual(after, { ...before, ufrag: after.ufrag, restarts: 1 });
      const gap = await longestGap(viewer, begun);
      assert.ok(gap < 1000, `no video for ${Math.round(gap)} ms`);
      assert.equal((await peer.seen()).posts.length, 1, `the ${role} goes on in its session`);
      const [session] = await scenario.server.sessionsOf('restart', role);
      const ice = session.stages.find(({ stage }) => stage === 'ice');
      assert.match(ice.detail, /^ICE restart 1: nominated /);
      assert.deepEqual([ice.state, ice.reopened, session.state], ['done', 0, 'media']);
    }
  });

  test('a connection that is lost comes back by an ICE restart within its session', async (scenario) => {
    const publisher = await scenario.publish('lost');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('lost');
    await scenario.firstFrame(viewer);
    await viewer.until('to decode for a while', ({ received }) => received.video?.framesDecoded >= 20);
    // As an ICE agent says it that hears nothing any more.
    await viewer.page.evaluate(() => {
      const { pc } = window.sluice;
      Object.defineProperty(pc, 'iceConnectionState', { configurable: true, get: () => 'disconnected' });
      pc.dispatchEvent(new Event('iceconnectionstatechange'));
      delete pc.iceConnectionState;
    });
    await poll('the restart', async () => (await scenario.server.sessionsOf('lost', 'viewer'))[0].stats.ice_restarts === 1);
    await expectFlow(publisher, viewer, 2000);
    assert.equal((await viewer.seen()).posts.length, 1);
    assert.equal((await transport(viewer)).retries, 0);
  });
});
