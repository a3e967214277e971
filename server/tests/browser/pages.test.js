// The three pages as a person sees them; their screenshots are kept for people to look at.

import assert from 'node:assert/strict';

import { outputFile, suite } from './scenario.js';
import { poll } from './poll.js';

suite('pages', { ice: 'lite' }, (test) => {
  test('the pages show the stream and its stages, from this server alone', async (scenario) => {
    const publisher = await scenario.publish('show');
    await scenario.publishing(publisher);
    const viewer = await scenario.watch('show');
    await scenario.firstFrame(viewer);
    const home = await scenario.open('home', `${scenario.server.http}/`);
    await poll('the home page to name the stream', async () => (await home.page.textContent('body')).includes('show'));
    for (const peer of [publisher, viewer]) {
      await poll(`${peer.name}'s stages to be done`, async () => {
        const { state, stages } = await peer.said();
        return ['live', 'playing'].includes(state) && stages.length === 6 && stages.every((stage) => stage.state === 'done');
      });
    }

    const shots = { 'page-home.png': home, 'page-publish.png': publisher, 'page-watch.png': viewer };
    for (const [name, peer] of Object.entries(shots)) {
      await peer.page.screenshot({ path: outputFile(name), fullPage: true });
      assert.deepEqual([...peer.hosts], [new URL(scenario.server.http).host], `${peer.name} asks no other host`);
      const complaints = peer.console.filter((line) => /^(error|warning|uncaught)/.test(line));
      assert.deepEqual(complaints, [], `${peer.name}'s console`);
    }
  });
});
