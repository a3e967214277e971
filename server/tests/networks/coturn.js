// Debian's coturn in a node of the network: TURN over UDP, TCP and TLS, and STUN.

import { createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execFileSync } from 'node:child_process';

import { poll } from '../browser/poll.js';

export const PORT = 3478;
export const TLS_PORT = 443;
const [USER, PASSWORD] = ['viewer', 'not-a-secret'];

/** A certificate that nobody signed, with what tells Chromium to trust it. */
export class Certificate {
  constructor(address) {
    this.folder = mkdtempSync(join(tmpdir(), 'sluice-coturn-'));
    this.key = join(this.folder, 'key.pem');
    this.file = join(this.folder, 'certificate.pem');
    const names = ['-subj', '/CN=turn.example', '-addext', `subjectAltName=IP:${address}`];
    const kind = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
    execFileSync('openssl', ['req', ...kind, ...names, '-keyout', this.key, '-out', this.file], { stdio: 'pipe' });
    const { publicKey } = new X509Certificate(readFileSync(this.file));
    const spki = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
    this.flags = [`--ignore-certificate-errors-spki-list=${spki}`];
  }

  remove() {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export class Coturn {
  #child;
  #log = '';

  /** Starts it on one address of a node. */
  static async start(network, node, address, certificate) {
    const coturn = new Coturn();
    const ports = ['--listening-port', `${PORT}`, '--tls-listening-port', `${TLS_PORT}`];
    const here = ['--listening-ip', address, '--relay-ip', address, '--cert', certificate.file, '--pkey', certificate.key];
    const access = ['--lt-cred-mech', '--user', `${USER}:${PASSWORD}`, '--realm', 'example.org', '--fingerprint'];
    const files = ['-n', '--log-file', 'stdout', '--userdb', join(certificate.folder, 'users'), '--pidfile', join(certificate.folder, 'pid')];
    coturn.address = address;
    coturn.#child = network.spawn(node, 'turnserver', [...files, '--no-cli', ...ports, ...here, ...access], { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [coturn.#child.stdout, coturn.#child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (coturn.#log = (coturn.#log + text).slice(-20_000)));
    }
    await poll('coturn to listen', async () => {
      if (coturn.#child.exitCode !== null) throw Object.assign(new Error(`coturn has ended:\n${coturn.#log}`), { final: true });
      const listening = network.run(node, 'ss', '-Hltn');
      return [PORT, TLS_PORT].every((port) => listening.includes(`${address}:${port} `));
    });
    return coturn;
  }

  /** An entry of `iceServers`, over 'udp', 'tcp' or 'tls'. */
  server(protocol) {
    const url = protocol === 'tls' ? `turns:${this.address}:${TLS_PORT}?transport=tcp` : `turn:${this.address}:${PORT}?transport=${protocol}`;
    return { urls: [url], username: USER, credential: PASSWORD };
  }

  async stop() {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }
}
