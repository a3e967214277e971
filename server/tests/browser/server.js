// Starts the server under test on free loopback ports, waits until it is ready, and keeps its log.

import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { createSocket } from 'node:dgram';

import { poll } from './poll.js';
import { TARGET } from './target.js';

const BINARY = process.env.SLUICE_BIN ?? `${TARGET}/debug/sluice`;
const LOG_LINES = 400;

/** A port below those that the system hands out, so that nobody gets it by chance before the server does. */
const somePort = () => 10_000 + Math.floor(20_000 * Math.random());

/** Tries ports until one can be had; anything but a taken port is an error. */
async function firstFree(take) {
  for (;;) {
    const port = somePort();
    try {
      await take(port);
      return port;
    } catch (error) {
      if (error.code !== 'EADDRINUSE') throw error;
    }
  }
}

/** A TCP port of the loopback address that nobody listens on. */
function freeTcpPort() {
  return firstFree((port) => {
    const probe = createServer();
    return new Promise((resolve, reject) => {
      probe.once('error', reject);
      probe.listen(port, '127.0.0.1', () => probe.close(resolve));
    });
  });
}

function bindUdp(port) {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    socket.once('error', reject);
    socket.bind(port, '127.0.0.1', () => resolve(socket));
  });
}

/** The first of `count` neighbouring UDP ports that are all free: each shard takes one. */
function freeUdpPorts(count) {
  return firstFree(async (first) => {
    const sockets = [];
    try {
      while (sockets.length < count) sockets.push(await bindUdp(first + sockets.length));
    } finally {
      await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.close(resolve))));
    }
  });
}

export class Server {
  #child;
  #ended;
  #lines = [];

  constructor(child, http, admin) {
    this.#child = child;
    this.http = http;
    this.admin = admin;
    for (const stream of [child.stdout, child.stderr]) {
      let rest = '';
      stream.setEncoding('utf8').on('data', (text) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop();
        this.#lines.push(...lines);
        this.#lines.splice(0, this.#lines.length - LOG_LINES);
      });
    }
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => resolve(`could not be started: ${error.message}`));
      child.once('exit', (code, signal) => resolve(signal ? `was ended by ${signal}` : `ended with status ${code}`));
    });
  }

  /**
   * Starts `sluice` with two shards by default and resolves once `/readyz` says 200. `http` is where its public listener is, and
   * by which URL clients reach it: `{ listen, url }`; without public addresses it goes by its interfaces.
   */
  static async start({ ice = 'lite', shards = 2, mediaIp = '127.0.0.1', publicIps = [mediaIp], mediaPort, http, args = [] } = {}) {
    const [admin, media] = [await freeTcpPort(), mediaPort ?? (await freeUdpPorts(shards))];
    const local = http ? undefined : `127.0.0.1:${await freeTcpPort()}`;
    const { listen, url } = http ?? { listen: local, url: `http://${local}` };
    const flags = [
      ...['--http-listen', listen, '--admin-listen', `127.0.0.1:${admin}`],
      ...['--media-ip', mediaIp, ...publicIps.flatMap((ip) => ['--public-ip', ip]), '--media-port', `${media}`],
      ...['--shards', `${shards}`, '--ice', ice, ...args],
    ];
    // The settings under test come from the flags alone.
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SLUICE_')));
    const child = spawn(BINARY, flags, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const server = new Server(child, url, `http://127.0.0.1:${admin}`);
    let ended;
    server.#ended.then((how) => (ended = how));
    try {
      await poll('the server to become ready', async () => {
        if (ended) throw Object.assign(new Error(`the server ${ended}`), { final: true });
        return (await fetch(`${server.admin}/readyz`)).status === 200;
      });
    } catch (error) {
      child.kill('SIGKILL');
      throw new Error(`${error.message}\n${BINARY} ${flags.join(' ')}\n${server.log()}`);
    }
    return server;
  }

  /** The last lines of the server's log. */
  log(lines = 60) {
    return this.#lines.slice(-lines).join('\n');
  }

  /** A counter of `/metrics`, summed over its labels. */
  async counter(name) {
    const text = await (await fetch(`${this.admin}/metrics`)).text();
    const values = text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
    if (values.length === 0) throw new Error(`/metrics has no ${name}`);
    return values.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }

  /** All sessions that the admin API shows, live and recently ended. */
  sessions() {
    return this.#api('sessions');
  }

  /** What the admin API says of a stream. */
  async stream(name) {
    return (await this.#api('streams')).find(({ stream }) => stream === name);
  }

  /** The UDP addresses and ports that clients are told, as `/readyz` lists them. */
  async candidates() {
    const text = await (await fetch(`${this.admin}/readyz`)).text();
    return text.split('\n').filter((line) => line.startsWith('candidate udp ')).map((line) => line.split(' ')[2]);
  }

  /** Lets the server read its configuration again. */
  async reload() {
    const response = await fetch(`${this.admin}/api/v1/reload`, { method: 'POST' });
    if (response.status !== 200) throw new Error(`a reload answers ${response.status}: ${await response.text()}`);
  }

  async #api(path) {
    const response = await fetch(`${this.admin}/api/v1/${path}`);
    if (response.status !== 200) throw new Error(`/api/v1/${path} answers ${response.status}`);
    return response.json();
  }

  /** The sessions of one stream in one role, oldest first. */
  async sessionsOf(stream, role) {
    const all = await this.sessions();
    return all.filter((session) => session.stream === stream && session.role === role).sort((a, b) => a.created - b.created);
  }

  /** Lets the server begin to stop: it ends once it has no session, and when its `--drain-timeout` is over. */
  drain() {
    this.#child.kill('SIGTERM');
    return this.#ended;
  }

  /** Asks for an orderly end by SIGTERM; an error if the server does not end well within five seconds. */
  async stop() {
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
    const how = await this.#ended;
    clearTimeout(timer);
    if (how !== 'ended with status 0') throw new Error(`after SIGTERM the server ${how}\n${this.log()}`);
  }
}
