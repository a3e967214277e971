// A publisher and a viewer whose machine goes from one network to another, with another address: the pages restart ICE by PATCH.

import assert from 'node:assert/strict';

import { expectFlow } from '../browser/expect.js';
import { poll } from '../browser/poll.js';
import { CLIENT } from './network.js';
import { longestGap, remoteOf, suite } from './scenario.js';

const ROLES = ['publisher', 'viewer'];
/** Chromium looks at its interfaces again 2 s after one of them has changed. */
const BROWSER_NOTICES_MS = 2500;
/** The way to a network that the browser knows: 0.6 to 0.8 s on an idle machine, and one core may carry all of it here. */
const LONGEST_GAP_MS = 2000;
/** Where the way before is gone at once, or the next one was left just before, the browser has to see that first: some 3 s. */
const LONGEST_LATE_GAP_MS = 6000;

async function publishAndWatch(scenario, stream) {
  const publisher = await scenario.publish(stream);
  await scenario.publishing(publisher);
  const viewer = await scenario.watch(stream);
  await scenario.firstFrame(viewer);
  await expectFlow(publisher, viewer, 2000);
  return [publisher, viewer];
}

/** Both sessions go on over this way, and the video with them. */
async function expectMoved(scenario, stream, viewer, device) {
  const addresses = [CLIENT[device][4], CLIENT[device][6]];
  for (const role of ROLES) {
    await poll(`the ${role} at ${device}`, async () => addresses.includes((await remoteOf(scenario, stream, role))[0]));
  }
  const { received: { video: { framesDecoded } } } = await viewer.figures();
  await viewer.until('more video', ({ received }) => received.video.framesDecoded > framesDecoded + 20);
}

async function expectSameSessions(scenario, stream, peers) {
  for (const [index, peer] of peers.entries()) {
    assert.equal((await peer.seen()).posts.length, 1, `the ${ROLES[index]} goes on in its session`);
    const [session] = await scenario.server.sessionsOf(stream, ROLES[index]);
    assert.ok(session.stats.ice_restarts >= 1, `the ${ROLES[index]} restarted ICE`);
    assert.deepEqual([session.state, session.stages.find(({ stage }) => stage === 'ice').state], ['media', 'done']);
  }
}

// TRK-09, TRK-12, ICE-19
suite('a change of network', {}, (test) => {
  test('from Wi-Fi to cable and back, sessions go on and video is soon there again', async (scenario, network) => {
    const [publisher, viewer] = await publishAndWatch(scenario, 'back-and-forth');
    const ways = [['eth0', 'wlan0', LONGEST_GAP_MS], ['wlan0', 'eth0', LONGEST_LATE_GAP_MS]];
    for (const [device, other, longest] of ways) {
      network.join(device);
      const joined = Date.now();
      await viewer.until('to play on', ({ at }) => at > joined + BROWSER_NOTICES_MS);
      network.leave(other);
      const left = Date.now();
      await expectMoved(scenario, 'back-and-forth', viewer, device);
      const gap = await longestGap(viewer, joined);
      assert.ok(gap < longest, `the way to ${device} cost ${gap} ms of video`);
      // Until it has seen the former network go, it does not see it come back.
      await viewer.until('to play on', ({ at }) => at > left + BROWSER_NOTICES_MS);
    }
    await expectSameSessions(scenario, 'back-and-forth', [publisher, viewer]);
  });

  test('a way that is gone before the browser knows the other ends no session', async (scenario, network) => {
    const [publisher, viewer] = await publishAndWatch(scenario, 'gone');
    const since = Date.now();
    network.use('eth0');
    await expectMoved(scenario, 'gone', viewer, 'eth0');
    const gap = await longestGap(viewer, since);
    assert.ok(gap < LONGEST_LATE_GAP_MS, `the way to eth0 cost ${gap} ms of video`);
    await expectSameSessions(scenario, 'gone', [publisher, viewer]);
  });
});
