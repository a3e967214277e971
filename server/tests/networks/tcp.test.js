// Chromium publishes and watches where no UDP gets through: over TCP, by the media ports or by the port of the pages alone.

import assert from 'node:assert/strict';

import { expectFlow, expectSecure } from '../browser/expect.js';
import { SERVER } from './network.js';
import { pathOf, suite } from './scenario.js';

const FLOW_MS = 1000;
const STREAM = 'tcp';

/** A publisher and a viewer whose media goes to this port by TCP. */
async function publishAndWatchOverTcp(scenario, isExpected) {
  const publisher = await scenario.publish(STREAM);
  await scenario.publishing(publisher);
  const viewer = await scenario.watch(STREAM);
  await scenario.firstFrame(viewer);
  await expectFlow(publisher, viewer, FLOW_MS);
  for (const [peer, role] of [[publisher, 'publisher'], [viewer, 'viewer']]) {
    expectSecure(peer, await peer.figures());
    const { local, remote } = await pathOf(peer);
    assert.deepEqual([local.protocol, remote.protocol], ['tcp', 'tcp'], role);
    assert.ok(isExpected(remote.port), `the ${role}'s media goes to port ${remote.port}`);
    const { stats } = (await scenario.server.sessionsOf(STREAM, role)).at(-1);
    assert.equal(stats.transport, 'tcp', role);
  }
}

suite('no UDP', {}, (test) => {
  // ICE-20
  test('media goes to the media ports by TCP', async (scenario, network) => {
    network.block('meta l4proto udp');
    await publishAndWatchOverTcp(scenario, (port) => port !== 8080);
  });

  // ICE-20
  test('where UDP gets through it is used', async (scenario) => {
    const publisher = await scenario.publish(STREAM);
    await scenario.publishing(publisher);
    assert.equal((await pathOf(publisher)).local.protocol, 'udp');
    const { stats } = (await scenario.server.sessionsOf(STREAM, 'publisher')).at(-1);
    assert.equal(stats.transport, 'udp');
  });
});

const http = { listen: '[::]:443', url: `http://${SERVER[4]}:443` };

suite('nothing but the port of the pages', { http, args: ['--ice-tcp-on-http'] }, (test) => {
  // ICE-20
  test('media goes there, too', async (scenario, network) => {
    network.allowOnly('tcp dport 443');
    await publishAndWatchOverTcp(scenario, (port) => port === 443);
  });
});
