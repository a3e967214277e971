// Runs real clients against one server: each publisher with each codec that it has, and all viewers that can decode it.
//
//   node run.js [--quick] [--only TEXT]... [--table FILE]
//
// --quick runs the pairs that CI runs; --only keeps the publishers whose "name codec" contains the text; --table writes the
// result as a page. The exit status is 1 if a pair that both ends can do has failed.

import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { Server } from '../browser/server.js';
import { poll } from '../browser/poll.js';
import { TARGET } from '../browser/target.js';
import { launchChromium, launchFirefox } from './browser.js';
import { CODECS, clients } from './clients.js';
import { page } from './table.js';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true, default: [] },
    table: { type: 'string' },
  },
});

const OUTPUT = `${TARGET}/interop`;
const ADDRESS = process.env.SLUICE_INTEROP_ADDRESS;
const MEASURED_MS = 5000;
/** Until a publisher's media has come, and until a viewer shows and plays something. */
const START_MS = 20_000;
/** What of the source's frames has to be decoded: one frame at each end of the span may fall on its other side. */
const LEAST_FRAMES = 0.9;

const QUICK = ['Chromium H264', 'Firefox VP8', 'GStreamer H264', 'libdatachannel, as OBS H264', 'FFmpeg H264', 'libwebrtc VP8', 'aiortc, max-bundle VP8'];

const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What is wrong with a viewer between two samples, or nothing. */
function fault(before, after) {
  const sent = after.source.frames - before.source.frames;
  const shown = after.viewer.frames - before.viewer.frames;
  const faults = [];
  if (sent < 1) faults.push('the source stands');
  if (shown < LEAST_FRAMES * sent - 1) faults.push(`${shown} of ${sent} frames`);
  if (!(after.viewer.audio > before.viewer.audio)) faults.push('no sound');
  for (const [kind, lost] of Object.entries(after.viewer.lost)) if (lost > 0) faults.push(`${lost} ${kind} packets lost`);
  return faults.join(', ');
}

class Pair {
  constructor(viewer) {
    this.viewer = viewer;
  }

  /** Starts the viewer and measures it for five seconds; never throws. */
  async run(server, source, target) {
    try {
      this.client = await this.viewer.start({ ...target, role: 'watch', url: `${target.server}/whep/${target.stream}` });
      await poll('picture and sound', async () => {
        const { frames, audio } = await this.client.figures();
        return frames > 0 && audio > 0;
      }, { timeout: START_MS, every: 200 });
      const sample = async () => {
        const [from, to] = await Promise.all([source.figures(), this.client.figures()]);
        return { source: from, viewer: to };
      };
      const before = await sample();
      await delay(MEASURED_MS);
      this.fault = fault(before, await sample());
    } catch (error) {
      this.fault = error.message.split('\n')[0];
    }
    if (this.fault) this.account = await describe(server, target.stream, this);
    await this.client?.stop().catch(() => {});
    return !this.fault;
  }
}

async function describe(server, stream, { viewer, fault, client }) {
  const [publisher, watcher] = await Promise.all(['publisher', 'viewer'].map((role) => server.sessionsOf(stream, role).catch(() => [])));
  const parts = [`${viewer.name}: ${fault}`, client?.log?.() ?? '', JSON.stringify(publisher, null, 1), JSON.stringify(watcher, null, 1), server.log(30)];
  return parts.join('\n');
}

/** One publisher with one codec, and some viewers at once; returns the pairs. */
async function scene(server, publisher, codec, viewers) {
  const stream = `s${Math.random().toString(36).slice(2, 10)}`;
  const target = { server: server.http, stream, codec, address: ADDRESS };
  const pairs = viewers.map((viewer) => new Pair(viewer));
  let source;
  try {
    source = await publisher.start({ ...target, role: 'publish', url: `${server.http}/whip/${stream}` });
    await poll('media from the publisher', async () => {
      await source.figures();
      return (await server.sessionsOf(stream, 'publisher')).at(-1)?.stages.every(({ state }) => state === 'done');
    }, { timeout: START_MS, every: 200 });
    await Promise.all(pairs.map((pair) => pair.run(server, source, target)));
  } catch (error) {
    const fault = `the publisher: ${error.message.split('\n')[0]}`;
    for (const pair of pairs) pair.fault = fault;
    const sessions = await server.sessionsOf(stream, 'publisher').catch(() => []);
    if (pairs[0]) pairs[0].account = [fault, source?.log?.() ?? '', JSON.stringify(sessions, null, 1), server.log(30)].join('\n');
  }
  await source?.stop().catch(() => {});
  return pairs;
}

/** The cells of one line: those tried, again one by one where they failed, since they share the machine; and those that cannot be. */
async function line(server, publisher, codec, viewers) {
  const cells = {};
  for (const viewer of viewers) if (viewer.cannot[codec]) cells[viewer.name] = { cannot: viewer.cannot[codec] };
  const able = viewers.filter((viewer) => !viewer.cannot[codec]);
  let pairs = await scene(server, publisher, codec, able);
  for (const again of pairs.filter(({ fault }) => fault).map(({ viewer }) => viewer)) {
    const [pair] = await scene(server, publisher, codec, [again]);
    pairs = pairs.map((old) => (old.viewer === again ? pair : old));
  }
  for (const { viewer, fault, account } of pairs) {
    cells[viewer.name] = fault ? { fault } : { passed: true };
    if (account) writeFileSync(`${OUTPUT}/failed ${publisher.name} ${codec} ${viewer.name}.txt`.replaceAll(/[ ,]+/g, '-'), account);
  }
  return cells;
}

const wanted = (publisher, codec) => {
  const title = `${publisher.name} ${codec}`;
  return (!options.quick || QUICK.includes(title)) && (options.only.length === 0 || options.only.some((text) => title.includes(text)));
};

async function main() {
  mkdirSync(OUTPUT, { recursive: true });
  const server = await Server.start({ mediaIp: ADDRESS });
  const browsers = { chromium: await launchChromium(), firefox: await launchFirefox() };
  const { publishers, viewers } = clients(browsers);
  const lines = [];
  for (const publisher of publishers) {
    for (const codec of CODECS.filter((each) => !publisher.cannot[each] && wanted(publisher, each))) {
      await server.sessions();
      const began = Date.now();
      const cells = await line(server, publisher, codec, viewers);
      lines.push({ publisher, codec, cells });
      if (options.table) writeFileSync(options.table, page({ publishers, viewers, lines, codecs: CODECS }));
      const told = viewers.map(({ name }) => `${name} ${cells[name].passed ? 'ok' : (cells[name].fault ?? '–')}`);
      console.log(`${publisher.name} ${codec} (${Math.round((Date.now() - began) / 1000)} s): ${told.join(' | ')}`);
    }
  }
  await Promise.allSettled(Object.values(browsers).map((browser) => browser.close()));
  await server.stop();
  const cells = lines.flatMap((each) => Object.values(each.cells));
  const count = (kind) => cells.filter((cell) => cell[kind]).length;
  console.log(`interop: ${count('passed')} passed, ${count('fault')} failed`);
  process.exit(count('fault') > 0 || count('passed') === 0 ? 1 : 0);
}

await main();
