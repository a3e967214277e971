// Chromium publishes and watches through a TURN server, and by no other way.

import assert from 'node:assert/strict';
import { after } from 'node:test';

import { expectFlow, expectSecure } from '../browser/expect.js';
import { Certificate, Coturn } from './coturn.js';
import { INTERNET, SERVER } from './network.js';
import { pathOf, remoteOf, suite, withSettings } from './scenario.js';

const FLOW_MS = 2000;
const STREAM = 'relayed';

const certificate = new Certificate(INTERNET[4]);
after(() => certificate.remove());

/** What lets each kind of relaying out, and nothing else of media. */
const FIREWALLS = {
  udp: (network) => network.block(`meta l4proto udp ip daddr ${SERVER[4]}`),
  tcp: (network) => network.block('meta l4proto udp'),
  tls: (network) => network.allowOnly('tcp dport 443'),
};

// The pages come over port 443, too: one suite has all three firewalls.
const http = { listen: '[::]:443', url: `http://${SERVER[4]}:443` };

suite('relayed by TURN', { http, flags: certificate.flags }, (test) => {
  // ICE-14
  for (const protocol of ['udp', 'tcp', 'tls']) {
    test(`over ${protocol}`, async (scenario, network) => {
      const coturn = await Coturn.start(network, 'internet', INTERNET[4], certificate);
      try {
        FIREWALLS[protocol](network);
        const relayed = withSettings({ iceServers: [coturn.server(protocol)], iceTransportPolicy: 'relay' });
        const publisher = await scenario.publish(STREAM, {}, relayed);
        await scenario.publishing(publisher);
        const viewer = await scenario.watch(STREAM, {}, relayed);
        await scenario.firstFrame(viewer);
        await expectFlow(publisher, viewer, FLOW_MS);
        for (const peer of [publisher, viewer]) {
          // A relayed path changes nothing in keys.
          expectSecure(peer, await peer.figures());
          const { local } = await pathOf(peer);
          assert.deepEqual([local.candidateType, local.relayProtocol, local.address], ['relay', protocol, INTERNET[4]], peer.name);
        }
        for (const role of ['publisher', 'viewer']) assert.equal((await remoteOf(scenario, STREAM, role))[0], INTERNET[4], role);
      } finally {
        await coturn.stop();
      }
    });
  }
});
