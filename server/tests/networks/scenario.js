// The stage of every test in a network: the network, a server in it, and a browser in its client's namespace.

import { after, before, describe, it } from 'node:test';

import { CHROMIUM, launchBrowser, Scenario } from '../browser/scenario.js';
import { Server } from '../browser/server.js';
import { Network, SERVER } from './network.js';

const PORT = 8080;

const literal = (address) => (address.includes(':') ? `[${address}]` : address);

/** Runs in the page before its own scripts: every peer connection has these settings beside those of the page. */
function configure(settings) {
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(configuration) {
      super({ ...configuration, ...settings });
    }
  };
}

/** For a scenario's `publish` and `watch`: the page's peer connections get these settings, such as `{ iceServers, iceTransportPolicy }`. */
export const withSettings = (settings) => ({ init: configure, argument: settings });

/** The candidate pair that a page's peer connection uses: `{ local, remote }` as of RTCIceCandidateStats. */
export function pathOf(peer) {
  return peer.page.evaluate(async () => {
    const reports = await window.sluice.pc.getStats();
    const { selectedCandidatePairId } = [...reports.values()].find(({ type }) => type === 'transport');
    const pair = reports.get(selectedCandidatePairId);
    return pair && { local: reports.get(pair.localCandidateId), remote: reports.get(pair.remoteCandidateId) };
  });
}

/** Where the server sends media of a stream's latest publisher or viewer to: `[address, port]`. */
export async function remoteOf({ server }, stream, role) {
  const { stats } = (await server.sessionsOf(stream, role)).at(-1);
  const [, address, port] = /^\[?(.*?)\]?:(\d+)$/.exec(stats.remote_address);
  return [address, Number(port)];
}

/** The longest time between two frames that a viewer showed since `since`, and until now, in milliseconds. */
export async function longestGap(viewer, since) {
  const { frames } = await viewer.seen();
  const times = [...frames.filter((at) => at >= since), Date.now()];
  return Math.max(...times.slice(1).map((at, index) => at - times[index]));
}

/**
 * A group of tests that share a network, a server and a browser, and find the network as it was made; with `ice: 'both'` the
 * whole group runs once on each kind of ICE. `families` are the network's, `http` and other options are those of `Server.start`,
 * `flags` Chromium's; `prepare(network)` makes what the server finds at its start, and returns what ends it. `define` gets `test(title, async (scenario, network) => {})`.
 */
export function suite(title, { ice = 'both', families = [4, 6], http, flags = [], args = [], prepare, ...options }, define) {
  const host = literal(SERVER[families[0]]);
  const reached = http ?? { listen: `[::]:${PORT}`, url: `http://${host}:${PORT}` };
  const publicIps = families.map((family) => SERVER[family]);
  for (const kind of ice === 'both' ? ['lite', 'full'] : [ice]) {
    const group = `${title} (ICE ${kind})`;
    describe(group, () => {
      let network;
      let server;
      let browser;
      let unprepare;
      before(async () => {
        network = Network.make({ families });
        unprepare = await prepare?.(network);
        server = await Server.start({ ice: kind, http: reached, mediaIp: '::', publicIps, args: ['--open', ...args], ...options });
        // Cameras are for pages from a secure place.
        const secure = `--unsafely-treat-insecure-origin-as-secure=${reached.url}`;
        browser = await launchBrowser({ program: network.program('client', CHROMIUM), flags: [secure, ...flags] });
      });
      after(async () => {
        await browser?.close();
        await server?.stop();
        await unprepare?.();
        network?.close();
      });
      define((name, body) => it(name, { timeout: 60_000 }, async () => {
        network.reset();
        await new Scenario(server, browser).run(`${group} ${name}`, (scenario) => body(scenario, network));
      }));
    });
  }
}
