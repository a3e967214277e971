// A page of another origin with its own small WHIP and WHEP client.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';

import { poll } from './poll.js';
import { suite } from './scenario.js';

/** Serves one empty page on an origin of its own. */
async function otherOrigin() {
  const http = createServer((_, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>another origin</title><video autoplay muted playsinline></video>');
  });
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${http.address().port}/`, close: () => http.close() };
}

/** Runs inside the page: joins `endpoint` as a client that knows nothing of this server but the standards. */
async function join({ endpoint, publish }) {
  const pc = new RTCPeerConnection();
  window.sluice = { pc };
  if (publish) {
    const media = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 180 }, audio: true });
    for (const track of media.getTracks()) pc.addTransceiver(track, { direction: 'sendonly', streams: [media] });
  } else {
    const video = document.querySelector('video');
    pc.addEventListener('track', ({ streams }) => (video.srcObject = streams[0]));
    for (const kind of ['video', 'audio']) pc.addTransceiver(kind, { direction: 'recvonly' });
  }
  const candidates = [];
  const gathered = new Promise((resolve) => {
    pc.addEventListener('icecandidate', ({ candidate }) => (candidate?.candidate ? candidates.push(candidate) : resolve()));
  });
  await pc.setLocalDescription();
  const offer = pc.localDescription.sdp;
  const response = await fetch(endpoint, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: offer });
  const headers = Object.fromEntries(['location', 'etag', 'accept-patch'].map((name) => [name, response.headers.get(name)]));
  if (response.status !== 201) return { status: response.status, headers, body: await response.text() };
  await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });

  await gathered;
  const line = (name) => offer.match(new RegExp(`^a=${name}:.*`, 'm'))[0];
  const media = offer.match(/^m=.*/m)[0];
  const mid = candidates[0]?.sdpMid ?? offer.match(/^a=mid:(.*)/m)[1];
  const fragment = [line('ice-ufrag'), line('ice-pwd'), media, `a=mid:${mid}`];
  fragment.push(...candidates.filter(({ sdpMid }) => sdpMid === mid).map(({ candidate }) => `a=${candidate}`), 'a=end-of-candidates', '');
  window.session = new URL(headers.location, endpoint).href;
  const patch = await fetch(window.session, {
    method: 'PATCH',
    headers: { 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': headers.etag },
    body: fragment.join('\r\n'),
  });
  return { status: response.status, headers, patch: patch.status };
}

async function leave() {
  const response = await fetch(window.session, { method: 'DELETE' });
  return response.status;
}

suite('another origin', { ice: 'both', args: ['--cors-origins', '*'] }, (test) => {
  test('its scripts publish, trickle, watch and leave', async (scenario) => {
    const origin = await otherOrigin();
    try {
      const publisher = await scenario.open('foreign publisher', origin.url);
      const viewer = await scenario.open('foreign viewer', origin.url);
      const joins = [
        [publisher, { endpoint: `${scenario.server.http}/whip/foreign`, publish: true }],
        [viewer, { endpoint: `${scenario.server.http}/whep/foreign`, publish: false }],
      ];
      for (const [peer, options] of joins) {
        const { status, headers, patch, body } = await peer.page.evaluate(join, options);
        assert.equal(status, 201, body);
        assert.ok(headers.location, 'the script can read Location');
        assert.match(headers.etag, /^"[^"]+"$/, 'the script can read ETag');
        assert.equal(headers['accept-patch'], 'application/trickle-ice-sdpfrag');
        assert.equal(patch, 204);
        if (options.publish) await scenario.publishing(peer);
      }
      await viewer.until('to decode', ({ received }) => received.video?.framesDecoded > 10);
      for (const peer of [viewer, publisher]) assert.equal(await peer.page.evaluate(leave), 200);
      for (const role of ['viewer', 'publisher']) {
        await poll(`the ${role} to be gone`, async () => (await scenario.server.sessionsOf('foreign', role))[0]?.state === 'closed');
      }
    } finally {
      origin.close();
    }
  });

  test('its scripts can read why they are refused', async (scenario) => {
    const origin = await otherOrigin();
    try {
      const page = await scenario.open('foreign page', origin.url);
      const refusal = await page.page.evaluate(async (endpoint) => {
        const response = await fetch(endpoint, { method: 'POST', headers: { 'Content-Type': 'text/plain' }, body: 'no offer' });
        return { status: response.status, type: response.headers.get('content-type'), problem: await response.json() };
      }, `${scenario.server.http}/whip/foreign`);
      assert.equal(refusal.status, 415);
      assert.match(refusal.type, /^application\/problem\+json/);
      assert.equal(refusal.problem.code, 'unsupported-media-type');
    } finally {
      origin.close();
    }
  });
});

// M3
suite('another origin without leave', { ice: 'lite' }, (test) => {
  test('its scripts can neither list nor watch nor publish, and can read why', async (scenario) => {
    const publisher = await scenario.publish('private');
    await scenario.publishing(publisher);
    const origin = await otherOrigin();
    try {
      const { page } = await scenario.open('foreign page', origin.url);
      for (const [method, path] of [['GET', 'streams.json'], ['POST', 'whep/private'], ['POST', 'whip/other']]) {
        const refusal = await page.evaluate(async ([method, url]) => {
          const headers = method === 'POST' ? { 'Content-Type': 'application/sdp' } : {};
          const response = await fetch(url, { method, headers, body: method === 'POST' ? 'v=0' : undefined });
          return { status: response.status, problem: await response.json() };
        }, [method, `${scenario.server.http}/${path}`]);
        assert.equal(refusal.status, 403, path);
        assert.equal(refusal.problem.code, 'cross-origin');
        assert.match(refusal.problem.detail, /cors_origins/);
      }
      // Neither from the browser's own machine.
      const admin = await page.evaluate((url) => fetch(url).then((response) => response.status, (error) => error.name), `${scenario.server.admin}/api/v1/sessions`);
      assert.equal(admin, 'TypeError');
      assert.equal((await scenario.server.sessionsOf('private', 'viewer')).length, 0);
      assert.equal((await scenario.server.sessionsOf('private', 'publisher')).length, 1);
    } finally {
      origin.close();
    }
  });

  test('a name that leads to this machine opens nothing', async (scenario) => {
    // As after DNS rebinding: the browser takes the name for the page's own origin.
    const { page } = await scenario.open('own page', scenario.server.http);
    const named = scenario.server.http.replace('127.0.0.1', 'rebound.example');
    const response = await page.goto(`${named}/streams.json`);
    assert.equal(response.status(), 403);
    assert.equal((await response.json()).code, 'host-not-allowed');
    const admin = await page.goto(`${scenario.server.admin.replace('127.0.0.1', 'rebound.example')}/api/v1/sessions`);
    assert.equal(admin.status(), 403);
  });
});
