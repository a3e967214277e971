// Simulcast of a real Firefox: the server learns of its three layers, and viewers in Firefox and Chromium are sent the one that
// they choose on the page.

import { overTime, poll } from '../browser/poll.js';
import { Server } from '../browser/server.js';
import { launchChromium, launchFirefox } from './browser.js';

const CAMERA = { width: 960, height: 540, frameRate: 15 };
const STREAM = 'layers';
/** What the publish page makes of the camera: the width of each rid. */
const WIDTHS = { q: 240, h: 480, f: 960 };
const START_MS = 30_000;
const STEADY_MS = 3000;
/** Frames of a layer in that time: the machine is shared by all encoders and decoders. */
const LEAST_FRAMES = 15;

/** Runs in the page: takes the entry of a rid in its menu, of several the one of the most frames. False while there is none. */
function choose(rid) {
  const menu = document.querySelector('#quality');
  const entry = [...menu.options].find(({ value }) => value.startsWith(`${rid}/`));
  if (!entry) return false;
  menu.value = entry.value;
  return menu.dispatchEvent(new Event('change'));
}

/** A viewer goes through the menu from the smallest picture to the largest. */
async function watch(browser, server) {
  const viewer = await browser.open(`${server.http}/watch/${STREAM}`);
  try {
    for (const [rid, width] of Object.entries(WIDTHS)) {
      await poll(`${browser.version}: the menu to have ${rid}`, () => viewer.evaluate(choose, rid), { timeout: START_MS });
      await poll(`${browser.version}: a width of ${width}`, async () => (await viewer.figures()).width === width, { timeout: START_MS });
      const [from, until] = await overTime(STEADY_MS, () => viewer.figures());
      if (until.width !== width || until.frames - from.frames < LEAST_FRAMES)
        throw new Error(`${browser.version}: ${until.frames - from.frames} frames of width ${until.width} in 3 s instead of ${width}`);
      console.log(`${browser.version}: ${until.frames - from.frames} frames of width ${width} in ${STEADY_MS / 1000} s`);
    }
  } catch (error) {
    throw new Error(`${error.message}\n${JSON.stringify(await server.sessionsOf(STREAM, 'viewer'), null, 1)}`);
  } finally {
    await viewer.stop();
  }
}

const server = await Server.start({ mediaIp: process.env.SLUICE_INTEROP_ADDRESS });
const [chromium, firefox] = [await launchChromium(), await launchFirefox()];
let failed = false;
try {
  const publisher = await firefox.open(`${server.http}/publish/${STREAM}?auto=1&source=camera&codec=VP8&layers=simulcast&bitrate=1000`, CAMERA);
  let rids;
  await poll('all layers of Firefox', async () => {
    const layers = (await server.stream(STREAM))?.tracks.find(({ kind }) => kind === 'video')?.layers ?? [];
    rids = new Set(layers.filter(({ bitrate }) => bitrate > 0).map(({ rid }) => rid));
    return rids.size === Object.keys(WIDTHS).length;
  }, { timeout: START_MS });
  console.log(`${firefox.version} publishes the rids ${[...rids].join(', ')}`);
  for (const browser of [chromium, firefox]) await watch(browser, server);
  await publisher.stop();
} catch (error) {
  console.error(`layers: ${error.message}\n${server.log(30)}`);
  failed = true;
}
await Promise.allSettled([chromium.close(), firefox.close()]);
await server.stop();
process.exit(failed ? 1 : 0);
