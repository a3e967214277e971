// A publisher and a viewer whose machine goes from one network to another, with another address: the pages restart ICE by PATCH.

import assert from 'node:assert/strict';

import { expectFlow } from '../browser/expect.js';
import { poll } from '../browser/poll.js';
import { CLIENT } from './network.js';
import { longestGap, remoteOf, suite } from './scenario.js';

const STREAM = 'change';
const ROLES = ['publisher', 'viewer'];
/** Chromium looks at its interfaces again 2 s after one of them has changed. */
const BROWSER_NOTICES_MS = 2500;
const LONGEST_GAP_MS = 1000;
/** Where the way before is gone at once, nothing can be sent until then; and one core may carry all of it. */
const LONGEST_ABRUPT_GAP_MS = 5000;

async function publishAndWatch(scenario) {
  const publisher = await scenario.publish(STREAM);
  await scenario.publishing(publisher);
  const viewer = await scenario.watch(STREAM);
  await scenario.firstFrame(viewer);
  await expectFlow(publisher, viewer, 1000);
  return [publisher, viewer];
}

/** Both sessions go on over this way, and the video with them. */
async function expectMoved(scenario, viewer, device) {
  const addresses = [CLIENT[device][4], CLIENT[device][6]];
  for (const role of ROLES) {
    await poll(`the ${role} at ${device}`, async () => addresses.includes((await remoteOf(scenario, STREAM, role))[0]));
  }
  const { received: { video: { framesDecoded } } } = await viewer.figures();
  await viewer.until('more video', ({ received }) => received.video.framesDecoded > framesDecoded + 20);
}

async function expectSameSessions(scenario, peers) {
  for (const [index, peer] of peers.entries()) {
    assert.equal((await peer.seen()).posts.length, 1, `the ${ROLES[index]} goes on in its session`);
    const [session] = await scenario.server.sessionsOf(STREAM, ROLES[index]);
    assert.ok(session.stats.ice_restarts >= 1, `the ${ROLES[index]} restarted ICE`);
    assert.deepEqual([session.state, session.stages.find(({ stage }) => stage === 'ice').state], ['media', 'done']);
  }
}

// TRK-09, TRK-12, ICE-19
suite('a change of network', {}, (test) => {
  test('from Wi-Fi to cable and back, and nobody is a second without video', async (scenario, network) => {
    const [publisher, viewer] = await publishAndWatch(scenario);
    for (const [device, other] of [['eth0', 'wlan0'], ['wlan0', 'eth0']]) {
      network.join(device);
      const joined = Date.now();
      await viewer.until('to play on', ({ at }) => at > joined + BROWSER_NOTICES_MS);
      network.leave(other);
      await expectMoved(scenario, viewer, device);
      const gap = await longestGap(viewer, joined);
      assert.ok(gap < LONGEST_GAP_MS, `the way to ${device} cost ${gap} ms of video`);
    }
    await expectSameSessions(scenario, [publisher, viewer]);
  });

  test('a way that is gone before the browser knows the other ends no session', async (scenario, network) => {
    const [publisher, viewer] = await publishAndWatch(scenario);
    const since = Date.now();
    network.use('eth0');
    await expectMoved(scenario, viewer, 'eth0');
    const gap = await longestGap(viewer, since);
    assert.ok(gap < LONGEST_ABRUPT_GAP_MS, `the way to eth0 cost ${gap} ms of video`);
    await expectSameSessions(scenario, [publisher, viewer]);
  });
});
