// Keeps the offers that the clients send: an HTTP proxy in front of the server that writes each POST's body into a file.

import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';

export class Recorder {
  #proxy;
  #folder;
  #names = new Map();
  #written = new Set();

  static async start(target, folder) {
    const recorder = new Recorder();
    recorder.#folder = folder;
    mkdirSync(folder, { recursive: true });
    recorder.#proxy = createServer((incoming, reply) => recorder.#forward(target, incoming, reply));
    recorder.#proxy.listen(0, '127.0.0.1');
    await once(recorder.#proxy, 'listening');
    recorder.url = `http://127.0.0.1:${recorder.#proxy.address().port}`;
    return recorder;
  }

  /** The first offer to this path is to be kept under `name`. */
  expect(path, name) {
    this.#names.set(path, name);
  }

  /** Whether the offer of this name has come. */
  has(name) {
    return this.#written.has(name);
  }

  #forward(target, incoming, reply) {
    const body = [];
    incoming.on('data', (chunk) => body.push(chunk));
    incoming.on('end', () => {
      const bytes = Buffer.concat(body);
      const name = incoming.method === 'POST' && this.#names.get(incoming.url);
      if (name && !this.#written.has(name)) {
        writeFileSync(`${this.#folder}/${name}.sdp`, bytes);
        this.#written.add(name);
      }
      const onward = request(target + incoming.url, { method: incoming.method, headers: incoming.headers }, (answer) => {
        reply.writeHead(answer.statusCode, answer.rawHeaders);
        answer.pipe(reply);
      });
      onward.on('error', () => reply.destroy());
      onward.end(bytes);
    });
    incoming.on('error', () => reply.destroy());
  }

  stop() {
    this.#proxy.closeAllConnections();
    this.#proxy.close();
  }
}
