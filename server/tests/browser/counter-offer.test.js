// A viewer whose offer has nothing of the stream, and a server that offers what it has.

import assert from 'node:assert/strict';

import { poll } from './poll.js';
import { suite } from './scenario.js';

/** Runs in the page: what it offers are codecs that nobody knows. */
function unknownCodecs() {
  const { fetch } = window;
  window.fetch = (resource, options) => {
    if (options?.method !== 'POST') return fetch(resource, options);
    const body = options.body.replace(/^(a=rtpmap:\d+ )/gm, '$1X-').replace(/^(m=audio \d+ \S+) .*$/m, '$1 111');
    return fetch(resource, { ...options, body });
  };
}

// WHEP-07, WHEP-09
suite('counter-offer', { ice: 'both', args: ['--counter-offer'] }, (test) => {
  test('a page answers the offer of the server, and plays', async (scenario) => {
    const publisher = await scenario.publish('offered');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('offered', {}, { init: unknownCodecs });
    await viewer.until('to decode', ({ received }) => received.video?.framesDecoded > 10);
    const { posts } = await viewer.seen();
    assert.deepEqual(posts.map(({ status }) => status), [406]);
    await poll('the server to see media', async () => (await scenario.server.sessionsOf('offered', 'viewer'))[0].state === 'media');
    const { received } = await viewer.figures();
    assert.ok(received.audio?.packetsReceived > 0, 'audio too');
  });
});
