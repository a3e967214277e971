// An impaired link in front of the server: `sluice-loadtest relay`, changed while it runs.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

import { TARGET } from './target.js';

const BINARY = process.env.SLUICE_LOADTEST_BIN ?? `${TARGET}/debug/sluice-loadtest`;

export class Relay {
  #child;
  #ended;

  /** Starts a relay towards `target`, an origin; resolves once it says which origin to use instead. */
  static async start(target, flags = []) {
    const args = ['relay', '--listen', '127.0.0.1:0', '--target', target, ...flags];
    const child = spawn(BINARY, args, { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, RUST_LOG: 'error' } });
    const relay = new Relay();
    relay.#child = child;
    relay.#ended = new Promise((resolve) => {
      child.once('error', (error) => resolve(`could not be started: ${error.message}`));
      child.once('exit', (code, signal) => resolve(signal ? `was ended by ${signal}` : `ended with status ${code}`));
    });
    const said = new Promise((resolve) => createInterface({ input: child.stdout }).on('line', (line) => {
      const url = /use (http\S+) in place of/.exec(line)?.[1];
      if (url) resolve(url);
    }));
    relay.url = await Promise.race([
      said,
      relay.#ended.then((how) => { throw new Error(`the relay ${how}: ${BINARY} ${args.join(' ')}`); }),
    ]);
    return relay;
  }

  async #ask(path, options) {
    const response = await fetch(`${this.url}/relay/${path}`, options);
    if (!response.ok) throw new Error(`/relay/${path} answers ${response.status}: ${await response.text()}`);
    return response;
  }

  /** Changes the links: `{ both: { loss: 5 }, up: { delay: 50 }, down: { rate: 500 } }`, in %, ms and kbit/s. */
  async link(changes) {
    return (await this.#ask('link', { method: 'POST', body: JSON.stringify(changes) })).json();
  }

  /** Gives every client another port towards the server, as a NAT does that forgot them. */
  async rebind() {
    await this.#ask('rebind', { method: 'POST' });
  }

  /** What happened to datagrams so far, by direction and cause. */
  async counts() {
    return (await this.#ask('counts')).json();
  }

  /** Asks for an orderly end by SIGTERM. */
  async stop() {
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
    const how = await this.#ended;
    clearTimeout(timer);
    if (how !== 'ended with status 0') throw new Error(`after SIGTERM the relay ${how}`);
  }
}
