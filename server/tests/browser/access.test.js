// Who gets in, and what the pages say to those who do not.

import assert from 'node:assert/strict';

import { expectFlow } from './expect.js';
import { poll } from './poll.js';
import { suite } from './scenario.js';

suite('tokens', { ice: 'lite', args: ['--token', 'guarded=right', '--protect-viewers'] }, (test) => {
  test('a publisher with a wrong token is told so', async (scenario) => {
    const publisher = await scenario.publish('guarded', { token: 'wrong' });
    const error = await publisher.refused();
    assert.equal(error.status, 401);
    assert.equal(error.code, 'unauthorized');
    assert.equal(error.state, 'failed');
    assert.match(error.text, /token/i);
    assert.equal((await scenario.server.sessionsOf('guarded', 'publisher')).length, 0);
  });

  test('a viewer with a wrong token is told so', async (scenario) => {
    const publisher = await scenario.publish('guarded', { token: 'right' });
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('guarded', { token: 'wrong' });
    const error = await viewer.refused();
    assert.equal(error.status, 401);
    assert.equal(error.code, 'unauthorized');
    assert.equal(error.state, 'failed');
    assert.match(error.text, /token/i);
  });

  test('the right token opens both pages', async (scenario) => {
    const publisher = await scenario.publish('guarded', { token: 'right' });
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('guarded', { token: 'right' });
    await scenario.firstFrame(viewer);
  });

  // Low: `?token=` in page URLs.
  test('a token in the address is used and taken out of it, and a reload has it still', async (scenario) => {
    const publisher = await scenario.publish('guarded', { token: 'right' });
    await scenario.publishing(publisher);
    for (const [name, address] of [
      ['fragment', '?auto=1#other=1&token=right'],
      ['old link', '?token=right&auto=1'],
    ]) {
      const viewer = await scenario.open(name, `${scenario.server.http}/watch/guarded${address}`);
      assert.doesNotMatch(viewer.page.url(), /token|right/, name);
      await scenario.firstFrame(viewer);
      const seen = await viewer.page.evaluate(() => [location.href, history.length, document.documentElement.outerHTML]);
      assert.doesNotMatch(seen[0], /token|right/, name);
      assert.doesNotMatch(seen[2], /token=right/, name);
      await viewer.page.reload();
      await scenario.firstFrame(viewer);
      await viewer.close();
    }
  });
});

suite('missing streams', { ice: 'lite' }, (test) => {
  test('a viewer of a stream that nobody publishes is told so, and has it once somebody does', async (scenario) => {
    // WHEP-05, WHEP-06
    const viewer = await scenario.watch('nobody');
    const error = await viewer.refused();
    assert.ok([404, 409].includes(error.status), `status ${error.status}`);
    assert.match(error.text, /not live/i);

    const publisher = await scenario.publish('nobody');
    await scenario.publishing(publisher);
    // The server asks for some seconds between tries.
    await poll('the viewer to play', async () => (await viewer.said()).state === 'playing', { timeout: 20_000 });
    await expectFlow(publisher, viewer, 2000);
  });
});
