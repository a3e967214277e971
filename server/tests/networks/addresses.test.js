// The server behind address translation: clients are told where they reach it.

import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { after } from 'node:test';

import { expectFlow } from '../browser/expect.js';
import { Certificate, Coturn, PORT } from './coturn.js';
import { ROUTER, SERVER } from './network.js';
import { pathOf, suite } from './scenario.js';

const FLOW_MS = 2000;
const [OUTER, NEXT_OUTER] = ['198.51.100.9', '198.51.100.11'];
// The pages come by IPv6, and media by IPv4.
const http = { listen: '[::]:8080', url: `http://[${SERVER[6]}]:8080` };

const certificate = new Certificate(ROUTER[4]);
after(() => certificate.remove());

/** A publisher and a viewer of one stream, whose media goes to an address of the server. */
async function publishAndWatchAt(scenario, stream, address) {
  const publisher = await scenario.publish(stream);
  await scenario.publishing(publisher);
  const viewer = await scenario.watch(stream);
  await scenario.firstFrame(viewer);
  await expectFlow(publisher, viewer, FLOW_MS);
  assert.equal((await pathOf(publisher)).remote.address, address);
}

const hosts = (candidates) => [...new Set(candidates.map((candidate) => candidate.replace(/:\d+$/, '')))];

/** The STUN server stands on the other side of the translation. */
async function behindNat(network) {
  network.map(OUTER);
  const coturn = await Coturn.start(network, 'router', ROUTER[4], certificate);
  return () => coturn.stop();
}

// What clients are told is the same with either kind of ICE; with the full one Chromium hides the address of a check that came first.
const ice = 'lite';

suite('an address that a STUN server sees', { ice, http, publicIps: [`auto:stun:${ROUTER[4]}:${PORT}`], prepare: behindNat }, (test) => {
  // F-14, F-23, ICE-22
  test('clients reach it, and the next one once it has changed', async (scenario, network) => {
    network.map(OUTER);
    assert.deepEqual(hosts(await scenario.server.candidates()), [OUTER]);
    await publishAndWatchAt(scenario, 'first', OUTER);
    network.map(NEXT_OUTER);
    await scenario.server.reload();
    assert.deepEqual(hosts(await scenario.server.candidates()), [NEXT_OUTER]);
    await publishAndWatchAt(scenario, 'second', NEXT_OUTER);
  });
});

const MEDIA_PORT = 50_000;
const MAPPED_PORT = 31_000;

/** A name that leads to the outer address. */
function named() {
  appendFileSync('/etc/hosts', `${OUTER} media.example\n`);
}

// The first address leads nowhere.
const publicIps = ['192.0.2.99', `media.example:${MAPPED_PORT}`];

suite('a name with mapped ports', { ice, http, publicIps, mediaPort: MEDIA_PORT, prepare: named }, (test) => {
  // F-14
  test('clients reach it beside an address that leads nowhere', async (scenario, network) => {
    network.map(OUTER, { [MAPPED_PORT]: MEDIA_PORT, [MAPPED_PORT + 1]: MEDIA_PORT + 1 });
    assert.deepEqual(hosts(await scenario.server.candidates()), ['192.0.2.99', OUTER]);
    await publishAndWatchAt(scenario, 'mapped', OUTER);
  });
});
