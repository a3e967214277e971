// What the pages, and scripts of other origins, make of the STUN and TURN servers that an answer names.

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:http';

import { poll } from './poll.js';
import { suite } from './scenario.js';

const SECRET = 'shared-with-the-turn-server';
const REALM = 'sluice.example';
const [ALLOCATE, UNAUTHORIZED] = [0x0003, 0x0113];
const [USERNAME, INTEGRITY, ERROR_CODE, REALM_NAME, NONCE] = [0x0006, 0x0008, 0x0009, 0x0014, 0x0015];

/** A TURN server as far as its first question: it asks for credentials, judges them, and then says no more. */
class Challenger {
  /** Names that were shown with the right password, and with a wrong one. */
  proven = new Set();
  wrong = new Set();

  async listen() {
    this.socket = createSocket('udp4').on('message', (message, from) => this.#take(message, from));
    await new Promise((resolve) => this.socket.bind(0, '127.0.0.1', resolve));
    this.socket.unref();
    this.url = `turn:127.0.0.1:${this.socket.address().port}?transport=udp`;
    return this;
  }

  #take(message, from) {
    if (message.length < 20 || message.readUInt16BE(0) !== ALLOCATE) return;
    const attributes = new Map();
    for (let at = 20; at + 4 <= message.length; ) {
      const [type, length] = [message.readUInt16BE(at), message.readUInt16BE(at + 2)];
      attributes.set(type, { at, value: message.subarray(at + 4, at + 4 + length) });
      at += 4 + Math.ceil(length / 4) * 4;
    }
    const [username, integrity] = [attributes.get(USERNAME), attributes.get(INTEGRITY)];
    if (!username || !integrity) return this.socket.send(challenge(message.subarray(4, 20)), from.port, from.address);
    // RFC 8489 §14.5: what stands in front of the attribute, with the length as if nothing followed it.
    const name = username.value.toString();
    const password = createHmac('sha1', SECRET).update(name).digest('base64');
    const key = createHash('md5').update(`${name}:${REALM}:${password}`).digest();
    const covered = Buffer.from(message.subarray(0, integrity.at));
    covered.writeUInt16BE(integrity.at + 24 - 20, 2);
    const right = createHmac('sha1', key).update(covered).digest().equals(integrity.value);
    (right ? this.proven : this.wrong).add(name);
  }
}

function challenge(transaction) {
  const attribute = (type, value) => {
    const padded = Buffer.alloc(4 + Math.ceil(value.length / 4) * 4);
    padded.writeUInt16BE(type, 0);
    padded.writeUInt16BE(value.length, 2);
    value.copy(padded, 4);
    return padded;
  };
  const body = Buffer.concat([
    attribute(ERROR_CODE, Buffer.from([0, 0, 4, 1])),
    attribute(REALM_NAME, Buffer.from(REALM)),
    attribute(NONCE, Buffer.from('nonce')),
  ]);
  const head = Buffer.alloc(4);
  head.writeUInt16BE(UNAUTHORIZED, 0);
  head.writeUInt16BE(body.length, 2);
  return Buffer.concat([head, transaction, body]);
}

/** Runs in the page: no other way than through the TURN server is tried, or else the browser asks it only where it is in need. */
function relayOnly() {
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: 'relay' });
    }
  };
}

const turn = await new Challenger().listen();
const args = ['--ice-server', turn.url, '--turn-secret', SECRET, '--cors-origins', '*'];

// WHIP-22, WHIP-23, WHIP-25, CORS-04
suite('ice servers', { ice: 'lite', args }, (test) => {
  test('both pages ask the TURN server of the answer with the credentials of their session', async (scenario) => {
    const publisher = await scenario.publish('relayed', {}, { init: relayOnly });
    const session = (role) => poll(`the ${role}`, async () => (await scenario.server.sessionsOf('relayed', role))[0]);
    await session('publisher');
    const viewer = await scenario.watch('relayed', {}, { init: relayOnly });
    for (const [peer, role] of [[publisher, 'publisher'], [viewer, 'viewer']]) {
      const { id } = await session(role);
      const name = new RegExp(`^\\d+:${id}$`);
      await poll(`the ${role} to show its credentials`, () => [...turn.proven].some((shown) => name.test(shown)));
      const servers = await peer.page.evaluate(() => window.sluice.pc.getConfiguration().iceServers);
      assert.deepEqual(servers.map(({ urls }) => [urls].flat()), [[turn.url]]);
      assert.match(servers[0].username, name);
    }
    assert.equal(turn.wrong.size, 0);
  });

  test('a script of another origin reads the servers from OPTIONS', async (scenario) => {
    const origin = createServer((_, response) => response.setHeader('content-type', 'text/html').end('<!doctype html>'));
    await new Promise((resolve) => origin.listen(0, '127.0.0.1', resolve));
    try {
      const { page } = await scenario.open('foreign page', `http://127.0.0.1:${origin.address().port}/`);
      const link = await page.evaluate(async (endpoint) => {
        const response = await fetch(endpoint, { method: 'OPTIONS' });
        return response.headers.get('link');
      }, `${scenario.server.http}/whep/relayed`);
      assert.match(link, /^<turn:127\.0\.0\.1:\d+\?transport=udp>; rel="ice-server"; username="\d+:[0-9a-f]{16}"; credential="[^"]+"; credential-type="password"$/);
    } finally {
      origin.close();
    }
  });

  test('links are read whatever stands between their commas', async (scenario) => {
    const { page } = await scenario.open('own page', scenario.server.http);
    const read = (link) => page.evaluate(async ([root, value]) => {
      const { iceServers } = await import(`${root}/assets/whip.js`);
      return iceServers(new Headers(value === null ? {} : { Link: value }));
    }, [scenario.server.http, link]);
    assert.deepEqual(await read(null), []);
    assert.deepEqual(await read('<https://a.example/x>; rel="next", <stun:a.example>; rel="next"'), []);
    const links = [
      '<stun:a.example:3478>; rel="ice-server"',
      '<turn:b.example?transport=udp>;rel=ice-server;username="a,b";credential="c\\"d\\\\";credential-type="password"',
      '<https://a.example/layer>; rel="urn:ietf:params:whep:ext:core:layer"',
      '<TURNS:[2001:db8::1]:443?transport=tcp>; credential="x"; username="y"; rel="ice-server"',
    ];
    assert.deepEqual(await read(links.join(', ')), [
      { urls: 'stun:a.example:3478' },
      { urls: 'turn:b.example?transport=udp', username: 'a,b', credential: 'c"d\\' },
      { urls: 'TURNS:[2001:db8::1]:443?transport=tcp', username: 'y', credential: 'x' },
    ]);
  });
});
