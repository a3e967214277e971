// Publishers and viewers that come and go while a stream lives.

import assert from 'node:assert/strict';

import { expectFlow, expectQuickStart } from './expect.js';
import { poll } from './poll.js';
import { suite } from './scenario.js';

suite('life of a stream', {}, (test) => {
  test('the viewer keeps its session when the publisher reloads', async (scenario) => {
    const publisher = await scenario.publish('reload');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('reload');
    await scenario.firstFrame(viewer);
    await viewer.until('to decode for a while', ({ received }) => received.video?.framesDecoded >= 20);
    const before = await viewer.figures();

    await publisher.page.reload();
    await scenario.publishing(publisher);
    const again = (await publisher.seen()).connected.at(-1);
    const back = await poll('the video to return', async () => (await viewer.seen()).frames.find((at) => at > again));
    assert.ok(back - again <= 1000, `the video returned ${Math.round(back - again)} ms after the publisher's connection`);
    await expectFlow(publisher, viewer, 3000);

    const after = await viewer.figures();
    assert.ok(after.received.video.framesDecoded > before.received.video.framesDecoded, 'the same receiver goes on');
    const { posts, peers } = await viewer.seen();
    assert.equal(posts.length, 1, 'the viewer posted once');
    assert.equal(peers, 1, 'the viewer has one peer connection');
    const sessions = await scenario.server.sessionsOf('reload', 'viewer');
    assert.equal(sessions.length, 1, 'the server has one viewer session');
  });

  test('a late viewer has its video within a second and does not disturb the others', async (scenario) => {
    const publisher = await scenario.publish('late');
    const first = await scenario.publishing(publisher);
    const early = await scenario.watch('late');
    await scenario.firstFrame(early);
    await publisher.until('to have sent for five seconds', ({ at }) => at - first.at >= 5000, { every: 250 });

    const late = await scenario.watch('late');
    await expectQuickStart(scenario, late);
    await Promise.all([late, early].map((viewer) => expectFlow(publisher, viewer, 3000)));
  });

  test('a second publisher of a stream is refused and the first goes on', async (scenario) => {
    const publisher = await scenario.publish('twice');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('twice');
    await scenario.firstFrame(viewer);
    const second = await scenario.open('second publisher', publisher.page.url());
    const error = await second.refused();
    assert.equal(error.status, 409);
    assert.equal(error.code, 'publish-conflict');
    await expectFlow(publisher, viewer, 2000);
  });

  test('closing the pages ends their sessions', async (scenario) => {
    const publisher = await scenario.publish('leave');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('leave');
    await scenario.firstFrame(viewer);
    // As a person closes a tab: the page's pagehide handler runs.
    for (const { page } of [viewer, publisher]) await page.goto('about:blank');
    for (const role of ['viewer', 'publisher']) {
      const ended = await poll(`the ${role}'s session to end`, async () => {
        const [session] = await scenario.server.sessionsOf('leave', role);
        return session?.state === 'closed' && session;
      });
      assert.ok(['deleted', 'peer-closed'].includes(ended.reason), `${role} ended by ${ended.reason}`);
    }
  });
});
