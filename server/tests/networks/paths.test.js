// Chromium publishes and watches over the paths that clients have.

import assert from 'node:assert/strict';

import { expectFlow, expectSecure } from '../browser/expect.js';
import { poll } from '../browser/poll.js';
import { CLIENT, ROUTER } from './network.js';
import { longestGap, remoteOf, suite } from './scenario.js';

const FLOW_MS = 2000;
const STREAM = 'path';
/** Chromium's next own check, which would tell of another port as well, comes after 2.5 s. */
const LONGEST_GAP_MS = 2000;

/** A publisher and a viewer on this path, with everything that is to be true of them. */
async function publishAndWatch(scenario) {
  const publisher = await scenario.publish(STREAM);
  await scenario.publishing(publisher);
  const viewer = await scenario.watch(STREAM);
  await scenario.firstFrame(viewer);
  await expectFlow(publisher, viewer, FLOW_MS);
  for (const peer of [publisher, viewer]) expectSecure(peer, await peer.figures());
  return [publisher, viewer];
}

async function expectRemote(scenario, addresses) {
  for (const role of ['publisher', 'viewer']) {
    const [address] = await remoteOf(scenario, STREAM, role);
    assert.ok(addresses.includes(address), `the ${role} is at ${address}`);
  }
}

/** A second more of video from now on. */
async function expectPlays(viewer) {
  const { received: { video: { framesDecoded } } } = await viewer.figures();
  await viewer.until('more video', ({ received }) => received.video.framesDecoded > framesDecoded + 20);
}

suite('paths', {}, (test) => {
  test('nothing in between but routers', async (scenario) => {
    await publishAndWatch(scenario);
    await expectRemote(scenario, [CLIENT.wlan0[4], CLIENT.wlan0[6]]);
  });

  test('no datagram is longer than a path of 1280 bytes carries', async (scenario, network) => {
    network.mtu(1280);
    network.count({ any: 'meta l4proto udp', long: 'meta l4proto udp meta length > 1280' });
    await publishAndWatch(scenario);
    assert.ok(network.counted('any') > 200, `${network.counted('any')} datagrams were counted`);
    assert.equal(network.counted('long'), 0, 'datagrams that need fragments');
  });

  // ICE-19
  test('a NAT that gives out another port interrupts nobody for long', async (scenario, network) => {
    network.block('ip6 version 6');
    network.nat();
    const [, viewer] = await publishAndWatch(scenario);
    await expectRemote(scenario, [ROUTER[4]]);
    for (const role of ['publisher', 'viewer']) {
      const [, port] = await remoteOf(scenario, STREAM, role);
      const since = Date.now();
      network.rebind(port);
      await poll(`media at the ${role}'s new port`, async () => (await remoteOf(scenario, STREAM, role))[1] !== port);
      await expectPlays(viewer);
      const gap = await longestGap(viewer, since);
      assert.ok(gap < LONGEST_GAP_MS, `the ${role}'s new port cost ${gap} ms of video`);
    }
  });
});

suite('paths of IPv6 only', { families: [6] }, (test) => {
  test('nothing in between but routers', async (scenario) => {
    await publishAndWatch(scenario);
    await expectRemote(scenario, [CLIENT.wlan0[6]]);
  });
});
