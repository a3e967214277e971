// A client in a process of its own, asked by lines (see peers/protocol.js).

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const ANSWER_MS = 5000;
const LEAVE_MS = 4000;
const LOG_LINES = 60;

export class Client {
  #child;
  #ended;
  #how;
  #waiting = [];
  #lines = [];

  constructor(command, args, env) {
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    this.#child.stdin.on('error', () => {});
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      if (line.startsWith('{')) this.#waiting.shift()?.(JSON.parse(line));
      else this.#note(line);
    });
    createInterface({ input: this.#child.stderr }).on('line', (line) => this.#note(line));
    this.#ended = new Promise((resolve) => {
      const end = (how) => {
        this.#how = how;
        this.#waiting.splice(0).forEach((answer) => answer({ gone: how }));
        resolve();
      };
      this.#child.once('error', (error) => end(`could not be started: ${error.message}`));
      this.#child.once('exit', (code, signal) => end(`ended with ${signal ?? `status ${code}`}`));
    });
  }

  #note(line) {
    this.#lines.push(line);
    this.#lines.splice(0, this.#lines.length - LOG_LINES);
  }

  /** That the client is gone: with the server's code for it, if it printed one, else with its last words. */
  #gone() {
    const log = this.log();
    const code = log.match(/"code\\?":\\?"([a-z-]+)/);
    const words = code ? `the server answered ${code[1]}` : (this.#lines.findLast((line) => /\w/.test(line) && !/^Node\.js/.test(line)) ?? '');
    return Object.assign(new Error(`the client ${this.#how}: ${words.trim()}`), { final: true });
  }

  /** The client's figures: `frames`, `audio`, and of a viewer `lost`. */
  async figures() {
    if (this.#how) throw this.#gone();
    const answer = await new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error('the client does not answer')), ANSWER_MS).unref();
      this.#waiting.push(resolve);
      this.#child.stdin.write('figures\n');
    });
    if (answer.gone) throw this.#gone();
    return answer;
  }

  /** The last lines that the client printed. */
  log(lines = LOG_LINES) {
    return this.#lines.slice(-lines).join('\n');
  }

  async stop() {
    this.#child.stdin.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), LEAVE_MS);
    await this.#ended;
    clearTimeout(timer);
  }
}
