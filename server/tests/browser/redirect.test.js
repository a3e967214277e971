// Pages of one node whose streams another node serves: a redirect to another origin, where browsers drop the Authorization header.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { poll } from './poll.js';
import { Peer, launchBrowser } from './scenario.js';
import { Server } from './server.js';

// WHIP-19, WHIP-20
describe('redirect', () => {
  const token = ['--token', 'shared=right', '--protect-viewers'];
  let edge;
  let front;
  let browser;
  before(async () => {
    edge = await Server.start({ args: [...token, '--url-tokens', '--cors-origins', '*'] });
    front = await Server.start({ args: [...token, '--redirect', `*=${edge.http}`, '--redirect-with-token'] });
    browser = await launchBrowser();
  });
  after(async () => {
    await browser?.close();
    await front?.stop();
    await edge?.stop();
  });

  it('leads the pages to the other node with their token, and their sessions stay there', { timeout: 120_000 }, async () => {
    const open = (page, query) => Peer.open(browser, page, `${front.http}/${page}/shared?${query}#token=right`);
    const publisher = await open('publish', 'auto=1&source=camera&codec=VP8');
    try {
      await publisher.until('to send', ({ sent }) => sent.video?.framesSent > 0);
      const viewer = await open('watch', 'auto=1');
      await viewer.until('to decode', ({ received }) => received.video?.framesDecoded > 10);
      const { posts } = await viewer.seen();
      assert.equal(posts[0].status, 201);
      assert.ok(posts[0].location.startsWith('/whep/shared/'));
      assert.equal((await front.sessions()).length, 0);
      await poll('the stages of the viewer', async () => (await viewer.said()).stages.some(({ stage, state }) => stage === 'media' && state === 'done'));
      await viewer.page.evaluate(() => window.sluice.stop());
      await poll('the viewer to be gone', async () => (await edge.sessionsOf('shared', 'viewer'))[0]?.state === 'closed');
      assert.doesNotMatch(edge.log(400) + front.log(400), /right/);
    } finally {
      await publisher.close();
    }
  });

  it('tells a page without the token so before it leads anywhere', async () => {
    const viewer = await Peer.open(browser, 'viewer', `${front.http}/watch/shared#token=wrong`);
    try {
      assert.equal((await viewer.refused()).status, 401);
    } finally {
      await viewer.close();
    }
  });
});
