// The stage of every browser test: a server, a browser, publishers and viewers as pages, and what to tell when a test fails.

import { after, before, describe, it } from 'node:test';
import { mkdirSync, writeFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { chromium } from 'playwright-core';

import { poll } from './poll.js';
import { figures, probe } from './probe.js';
import { Relay } from './relay.js';
import { Server } from './server.js';
import { TARGET } from './target.js';

const OUTPUT = `${TARGET}/browser-tests/`;

const FLAGS = [
  // Tests run as root in CI, where the sandbox does not start.
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  // A name of another's that leads to this machine.
  '--host-resolver-rules=MAP rebound.example 127.0.0.1',
];

export const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** A headless Chromium with a profile of its own, a fake camera and a fake microphone. */
export function launchBrowser({ program = CHROMIUM, flags = [] } = {}) {
  return chromium.launch({ executablePath: program, args: [...FLAGS, ...flags] });
}

/** Where screenshots and logs for people go. */
export function outputFile(name) {
  mkdirSync(OUTPUT, { recursive: true });
  return OUTPUT + name;
}

/** One page in a context of its own, with its console kept. */
export class Peer {
  console = [];
  hosts = new Set();

  /** `options` are those of the browser's context, `init` runs in the page before its own scripts, with `argument`. */
  static async open(browser, name, url, { options, init, argument } = {}) {
    const peer = new Peer();
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    await context.addInitScript(probe);
    if (init) await context.addInitScript(init, argument);
    peer.name = name;
    peer.page = await context.newPage();
    peer.page.on('console', (message) => peer.console.push(`${message.type()}: ${message.text()}`));
    peer.page.on('pageerror', (error) => peer.console.push(`uncaught: ${error.message}`));
    peer.page.on('request', (request) => request.url().startsWith('http') && peer.hosts.add(new URL(request.url()).host));
    await peer.page.goto(url);
    return peer;
  }

  /** What the page itself says: state, error, stages. */
  said() {
    return this.page.evaluate(() => {
      const { state, error, stages } = window.sluice ?? {};
      return { state, error, stages };
    });
  }

  /** What the probe wrote down. */
  seen() {
    return this.page.evaluate(() => window.__probe);
  }

  /** The peer connection's figures. */
  figures() {
    return this.page.evaluate(`(${figures})(window.sluice.pc)`);
  }

  /** Waits until the figures fulfil `condition`, and returns them. */
  until(what, condition, options) {
    return poll(`${this.name}: ${what}`, async () => {
      const current = await this.figures();
      return condition(current) && current;
    }, options);
  }

  /** Waits until the page says that the server refused it; returns the page's state, the error's status and code, and the text that a person reads. */
  refused() {
    return poll(`${this.name} to be refused`, async () => {
      const { state, error } = await this.said();
      return error?.status && { state, ...error, text: await this.page.innerText('body') };
    });
  }

  /** Presses the watch page's button, as a person does: Chromium decodes no audio for a player that is muted. */
  async unmute() {
    if (await this.page.evaluate(() => document.querySelector('video').muted)) await this.page.click('#unmute', { timeout: 5000 });
  }

  close() {
    return this.page.context().close();
  }
}

/** What one test works with. */
export class Scenario {
  peers = [];
  relays = [];

  constructor(server, browser) {
    this.server = server;
    this.browser = browser;
  }

  async open(name, url, prepared) {
    const peer = await Peer.open(this.browser, name, url, prepared);
    this.peers.push(peer);
    return peer;
  }

  /** `through` is the relay that leads to the server, if one does; a token goes into the fragment, as nobody else is to see it. */
  #url(page, stream, { through, token, ...query }) {
    const fragment = token === undefined ? '' : `#${new URLSearchParams({ token })}`;
    return `${through?.url ?? this.server.http}/${page}/${stream}?${new URLSearchParams({ auto: '1', ...query })}${fragment}`;
  }

  /** A relay in front of the server that lasts as long as the test; `flags` are those of `sluice-loadtest relay`. */
  async relay(...flags) {
    const relay = await Relay.start(this.server.http, flags);
    this.relays.push(relay);
    return relay;
  }

  /** A page that publishes the fake camera and microphone by itself. */
  publish(stream, { codec = 'VP8', ...query } = {}, prepared = {}) {
    return this.open('publisher', this.#url('publish', stream, { source: 'camera', codec, ...query }), prepared);
  }

  /** A page that watches by itself. */
  watch(stream, query = {}, prepared = {}) {
    return this.open(`viewer ${this.peers.length}`, this.#url('watch', stream, query), prepared);
  }

  /** Waits until a publisher sends frames that the server reports as received. */
  publishing(publisher) {
    return publisher.until('to send video and audio', ({ sent }) => sent.video?.framesSent > 0 && sent.audio?.packetsSent > 0);
  }

  /** Waits until a viewer shows a frame; returns how long after its POST the first one was shown, in milliseconds. */
  async firstFrame(viewer) {
    const { posts, frames } = await poll(`${viewer.name}: the first frame`, async () => {
      const seen = await viewer.seen();
      return seen.frames.length > 0 && seen;
    });
    return frames[0] - posts.at(-1).at;
  }

  /** Everything that helps to understand a failure. */
  async #account(title) {
    const parts = [];
    const add = async (heading, read) => {
      const text = await read().catch((error) => error.message);
      parts.push(`--- ${heading}\n${typeof text === 'string' ? text : inspect(text, { depth: 6, breakLength: 150, maxArrayLength: 12 })}`);
    };
    for (const [index, peer] of this.peers.entries()) {
      await add(`${peer.name} says`, () => peer.said());
      await add(`${peer.name} saw`, () => peer.seen());
      await add(`${peer.name}'s figures`, () => peer.figures());
      await add(`${peer.name}'s console`, async () => peer.console.join('\n'));
      const name = `failed ${title} ${index} ${peer.name}.png`.replace(/[^\w.]+/g, '-');
      await peer.page.screenshot({ path: outputFile(name) }).catch(() => {});
    }
    for (const relay of this.relays) await add('counts of a relay', () => relay.counts());
    await add('sessions of the server', () => this.server.sessions());
    await add('log of the server', async () => this.server.log());
    return parts.join('\n');
  }

  async run(title, body) {
    try {
      await body(this);
    } catch (error) {
      const account = await this.#account(title);
      writeFileSync(outputFile(`failed ${title}.txt`.replace(/[^\w.]+/g, '-')), account);
      console.error(`${title}\n${account}`);
      throw error;
    } finally {
      await Promise.all(this.peers.map((peer) => peer.close()));
      await Promise.all(this.relays.map((relay) => relay.stop()));
    }
  }
}

/**
 * A group of tests that share one server and one browser; with `ice: 'both'` the whole group runs once on each kind of ICE.
 * `flags` are the browser's.
 * `define` gets `test(title, async (scenario) => {})`.
 */
export function suite(title, { ice = 'both', flags = [], ...options }, define) {
  for (const kind of ice === 'both' ? ['lite', 'full'] : [ice]) {
    const group = `${title} (ICE ${kind})`;
    describe(group, () => {
      let server;
      let browser;
      before(async () => {
        server = await Server.start({ ice: kind, ...options });
        browser = await launchBrowser({ flags });
      });
      after(async () => {
        await browser?.close();
        await server?.stop();
      });
      define((name, body) => it(name, { timeout: 120_000 }, () => new Scenario(server, browser).run(`${group} ${name}`, body)));
    });
  }
}
