// Takes the screenshot of README.md: `node docs/screenshot.mjs`, or `make screenshot`. The test pattern is published and watched on a
// server of its own; SLUICE_BIN names another binary than the debug build.

import { statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { poll } from '../server/tests/browser/poll.js';
import { Peer, launchBrowser } from '../server/tests/browser/scenario.js';
import { Server } from '../server/tests/browser/server.js';

const SCREENSHOT = fileURLToPath(new URL('watch.png', import.meta.url));
const LARGEST_BYTES = 200_000;

const server = await Server.start();
const browser = await launchBrowser();
try {
  await Peer.open(browser, 'publisher', `${server.http}/publish/show?auto=1&source=pattern&codec=VP8`);
  const viewer = await Peer.open(browser, 'viewer', `${server.http}/watch/show?auto=1`);
  await viewer.page.setViewportSize({ width: 960, height: 600 });
  await poll('the watch page to show the stream', async () => {
    const { state, stages } = await viewer.said();
    return state === 'playing' && stages.every((stage) => stage.state === 'done');
  });
  await viewer.unmute();
  await viewer.until('to play for some seconds', ({ received }) => received.video?.framesDecoded > 150);
  await viewer.page.screenshot({ path: SCREENSHOT, fullPage: true });
  const { size } = statSync(SCREENSHOT);
  if (size > LARGEST_BYTES) throw new Error(`${SCREENSHOT} has ${size} bytes; at most ${LARGEST_BYTES} are wanted`);
} finally {
  await browser.close();
  await server.stop();
}
