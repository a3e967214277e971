// What the watch page is told while it watches: how many others do, whether somebody publishes, and where to go.

import assert from 'node:assert/strict';

import { longestGap } from './measure.js';
import { poll } from './poll.js';
import { outputFile, suite } from './scenario.js';
import { Server } from './server.js';

const text = (viewer, selector) => viewer.page.innerText(selector);

// One kind of ICE is enough: it has no part in what is tested.
suite('events', { ice: 'lite', shards: 1, args: ['--cors-origins', '*'] }, (test) => {
  // EXT-03, EXT-06, EXT-07
  test('viewers see how many they are, and that the publisher went and came back', async (scenario) => {
    const publisher = await scenario.publish('shared');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('shared');
    await scenario.firstFrame(viewer);
    await poll('to be the only one', async () => (await text(viewer, '#viewers')) === '1 viewer');
    const other = await scenario.watch('shared');
    await scenario.firstFrame(other);
    for (const one of [viewer, other]) await poll('to see the other', async () => (await text(one, '#viewers')) === '2 viewers');
    await viewer.page.screenshot({ path: outputFile('page-watch-events.png'), fullPage: true });
    await other.close();
    await poll('to be alone again', async () => (await text(viewer, '#viewers')) === '1 viewer', { timeout: 15_000 });
    await publisher.page.evaluate(() => window.sluice.stop());
    await poll('to see that the publisher went', async () => (await text(viewer, '#status')) === 'The publisher is away');
    const next = await scenario.publish('shared');
    await scenario.publishing(next);
    await poll('to see that it is back', async () => (await text(viewer, '#status')) === 'Playing');
    assert.equal((await viewer.seen()).peers, 1, 'in one session');
  });

  // EXT-08
  test('viewers of a server that stops go to the one that takes over, without a gap', async (scenario) => {
    const successor = scenario.server;
    const args = ['--drain-timeout', '11s', '--reconnect-url', successor.http];
    const leaving = await Server.start({ shards: 1, args });
    try {
      const publishers = await Promise.all([successor, leaving].map((server) => scenario.open('publisher', `${server.http}/publish/both?auto=1&codec=VP8`)));
      await Promise.all(publishers.map((publisher) => scenario.publishing(publisher)));
      const viewer = await scenario.open('viewer', `${leaving.http}/watch/both`);
      await scenario.firstFrame(viewer);
      await poll('to follow the events', async () => (await text(viewer, '#viewers')) === '1 viewer');
      const begun = Date.now();
      const ended = leaving.drain();
      await poll('to be at the other server', async () => (await successor.sessionsOf('both', 'viewer'))[0]?.state === 'media');
      await poll('the session before to be gone', async () => (await leaving.sessionsOf('both', 'viewer'))[0]?.state !== 'media');
      await poll('to play on', async () => (await viewer.seen()).frames.at(-1) > Date.now() - 500);
      const { frames, peers } = await viewer.seen();
      const gap = longestGap(frames, begun, Date.now());
      console.log(`no new frame for ${Math.round(gap)} ms on the way to the other server`);
      assert.ok(gap < 1000, `no new frame for ${Math.round(gap)} ms`);
      assert.equal(peers, 2);
      assert.equal((await viewer.said()).state, 'playing');
      await publishers[1].close();
      assert.equal(await ended, 'ended with status 0');
    } catch (error) {
      await leaving.stop().catch(() => {});
      throw error;
    }
  });

  // EXT-08: a publisher goes elsewhere when its session ends, and not before.
  test('viewers find the stream at the server that takes over once its publisher is there', async (scenario) => {
    const successor = scenario.server;
    const leaving = await Server.start({ shards: 1, args: ['--drain-timeout', '10s', '--reconnect-url', successor.http] });
    try {
      const publisher = await scenario.open('publisher', `${leaving.http}/publish/later?auto=1&codec=VP8`);
      await scenario.publishing(publisher);
      const viewer = await scenario.open('viewer', `${leaving.http}/watch/later`);
      await scenario.firstFrame(viewer);
      await poll('to follow the events', async () => (await text(viewer, '#viewers')) === '1 viewer');
      assert.equal(await leaving.drain(), 'ended with status 0');
      await scenario.publishing(await scenario.publish('later'));
      await poll('to be at the other server', async () => (await successor.sessionsOf('later', 'viewer'))[0]?.state === 'media', { timeout: 30_000 });
      await poll('to play on', async () => (await viewer.seen()).frames.at(-1) > Date.now() - 500);
      assert.equal((await viewer.said()).state, 'playing');
    } catch (error) {
      await leaving.stop().catch(() => {});
      throw error;
    }
  });
});
