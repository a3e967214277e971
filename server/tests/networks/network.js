// A small internet of network namespaces. The server runs where the tests run, and each other node is a namespace of its own:
//
//   client ══ wlan0, eth0 ══ router ── access ── internet ── backbone0 ── (the tests and the server)
//
// The client has two ways to its router and uses one of them at a time; the router may be a NAT and a firewall; `internet` only
// forwards, and is where TURN and STUN servers run. All addresses are for documentation (RFC 5737, RFC 3849) or private ones.

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The node of the tests has no name. */
const HERE = undefined;
const NODES = ['client', 'router', 'internet'];

/** Each link's two ends: node, interface, IPv4 and IPv6 address. */
const LINKS = {
  backbone: [[HERE, 'backbone0', '203.0.113.10/24', '2001:db8:113::10/64'], ['internet', 'backbone', '203.0.113.1/24', '2001:db8:113::1/64']],
  access: [['router', 'access', '198.51.100.2/24', '2001:db8:100::2/64'], ['internet', 'access', '198.51.100.1/24', '2001:db8:100::1/64']],
  wlan0: [['client', 'wlan0', '192.168.1.2/24', '2001:db8:1::2/64'], ['router', 'lan-wlan0', '192.168.1.1/24', '2001:db8:1::1/64']],
  eth0: [['client', 'eth0', '192.168.2.2/24', '2001:db8:2::2/64'], ['router', 'lan-eth0', '192.168.2.1/24', '2001:db8:2::1/64']],
};

const end = (link, node) => {
  const [, device, four, six] = LINKS[link].find(([name]) => name === node);
  return { device, 4: four.split('/')[0], 6: six.split('/')[0] };
};

/** Where nodes are reached, by address family. */
export const SERVER = end('backbone', HERE);
export const INTERNET = end('backbone', 'internet');
export const ROUTER = end('access', 'router');
export const CLIENT = { wlan0: end('wlan0', 'client'), eth0: end('eth0', 'client') };

const LANS = { 4: ['192.168.1.0/24', '192.168.2.0/24'], 6: ['2001:db8:1::/64', '2001:db8:2::/64'] };

/** Ports that the NAT gives out, one range after the other. */
const NAT_PORTS = ['40000-44999', '45000-49999', '50000-54999'];

function run(command, ...args) {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** `ip` in a node. */
function ip(node, text) {
  return run('ip', ...(node ? ['-n', node] : []), ...text.split(' '));
}

export class Network {
  #families;
  #folder;
  #natPorts = 0;
  #outer;

  /** Makes all nodes and links; with `families: [6]` nothing has an IPv4 address. */
  static make({ families = [4, 6] } = {}) {
    if (!process.env.SLUICE_IN_NETWORKS) throw new Error('run these tests by server/tests/networks/in_networks');
    const network = new Network();
    network.#families = families;
    network.#folder = mkdtempSync(join(tmpdir(), 'sluice-network-'));
    try {
      for (const node of NODES) ip(HERE, `netns add ${node}`);
      for (const node of [HERE, ...NODES]) {
        ip(node, 'link set lo up');
        // An address is good at once: nobody else has it.
        network.run(node, 'sh', '-c', 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad');
      }
      for (const link of Object.keys(LINKS)) network.#connect(link);
      for (const node of ['router', 'internet']) {
        network.run(node, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding');
      }
      ip('client', 'link set eth0 down');
      network.#route('client', 'default', end('wlan0', 'router'));
      network.#route('router', 'default', end('access', 'internet'));
      network.#route(HERE, 'default', INTERNET);
      for (const family of families) for (const lan of LANS[family]) ip('internet', `-${family} route add ${lan} via ${ROUTER[family]}`);
    } catch (error) {
      network.close();
      throw error;
    }
    return network;
  }

  #connect(link) {
    const [one, other] = LINKS[link];
    const place = ([node, device], name = 'name') => `${name} ${device}${node ? ` netns ${node}` : ''}`;
    ip(HERE, `link add ${place(one)} type veth peer ${place(other)}`);
    for (const [node, device, four, six] of [one, other]) {
      // Datagrams that the system sends as one would pass as one, whatever the MTU.
      ip(node, `link set ${device} gso_max_segs 1 up`);
      if (this.#families.includes(4)) ip(node, `address add ${four} dev ${device}`);
      if (this.#families.includes(6)) ip(node, `-6 address add ${six} dev ${device}`);
    }
  }

  #route(node, to, via) {
    for (const family of this.#families) ip(node, `-${family} route replace ${to} via ${via[family]}`);
  }

  /** Runs a command in a node to its end; returns what it writes. */
  run(node, ...command) {
    return node ? run('nsenter', `--net=/run/netns/${node}`, '--', ...command) : run(...command);
  }

  /** Starts a command in a node; whoever starts it ends it. */
  spawn(node, command, args, options) {
    return spawn('nsenter', [`--net=/run/netns/${node}`, '--', command, ...args], options);
  }

  /** The path of a program that is the given one, run in a node. */
  program(node, path) {
    const script = join(this.#folder, `${node}-${path.split('/').at(-1)}`);
    writeFileSync(script, `#!/bin/sh\nexec nsenter --net=/run/netns/${node} -- '${path}' "$@"\n`, { mode: 0o755 });
    return script;
  }

  /** Lets a node keep these rules, in nftables' words, under a name; the former ones of that name are gone. */
  rules(node, name, rules) {
    const table = `table inet of-${name}`;
    this.run(node, 'nft', `${table}; delete ${table}; ${table} { ${rules}; }`);
  }

  /** The router hides the client's IPv4 addresses behind its own, as routers at home do; from outside there is no way to them. */
  nat() {
    const to = `masquerade to :${NAT_PORTS[this.#natPorts]}`;
    this.rules('router', 'nat', [
      `chain out { type nat hook postrouting priority srcnat; oifname access ip protocol { tcp, udp } ${to}; };`,
      'chain in { type filter hook forward priority -10; iifname access ip version 4 ct state new drop; }',
    ].join(' '));
  }

  /** The NAT forgets what it knew of UDP, or only of the given one of its ports, and gives out others from its next range. */
  rebind(port) {
    this.#natPorts = (this.#natPorts + 1) % NAT_PORTS.length;
    this.nat();
    this.#forget('router', '-p', 'udp', ...(port ? ['--reply-port-dst', `${port}`] : []));
  }

  /** Connection tracking of a node forgets what it knew. */
  #forget(node, ...which) {
    try {
      this.run(node, 'conntrack', '-D', ...which);
    } catch (error) {
      // That is its status where there was none to forget, too.
      if (!/ 0 flow entries/.test(error.stderr)) throw error;
    }
  }

  /**
   * `internet` has an outer address for the server's own IPv4 address and sends what it sends from there, as clouds do; with
   * `ports`, such as `{ 31000: 50000 }`, only these UDP ports come in. A former outer address is gone.
   */
  map(outer, ports) {
    if (this.#outer) ip('internet', `address delete ${this.#outer}/24 dev access`);
    this.#outer = outer;
    ip('internet', `address add ${outer}/24 dev access`);
    const inner = SERVER[4];
    const pairs = Object.entries(ports ?? {}).map(([from, to]) => `${from} : ${to}`).join(', ');
    const to = ports ? `meta l4proto udp dnat ip to ${inner} : udp dport map { ${pairs} }` : `dnat ip to ${inner}`;
    this.rules('internet', 'map', [
      `chain in { type nat hook prerouting priority dstnat; iifname access ip daddr ${outer} ${to}; };`,
      `chain out { type nat hook postrouting priority srcnat; oifname access ip saddr ${inner} snat ip to ${outer}; };`,
      `chain direct { type filter hook forward priority -10; iifname access ip daddr ${inner} ct status & dnat == 0 ct direction original drop; }`,
    ].join(' '));
    this.#forget('internet');
  }

  /** The router forwards nothing that matches, such as 'meta l4proto udp'. */
  block(match) {
    this.rules('router', 'firewall', `chain forward { type filter hook forward priority 0; ${match} drop; }`);
  }

  /** The router lets nothing out but what matches, such as 'tcp dport 443', and what answers it. */
  allowOnly(match) {
    const accept = ['ct state established,related', 'meta l4proto ipv6-icmp', match].map((each) => `${each} accept;`).join(' ');
    this.rules('router', 'firewall', `chain forward { type filter hook forward priority 0; policy drop; ${accept} }`);
  }

  /** The path between router and server carries packets of this size at most; the ends do not know. */
  mtu(bytes) {
    for (const [node, device] of LINKS.access) ip(node, `link set ${device} mtu ${bytes}`);
  }

  /** Counts what `internet` forwards, by names for matches: `{ long: 'meta length > 1280' }`. */
  count(matches) {
    const names = Object.keys(matches);
    const counters = names.map((name) => `counter of-${name} { };`).join(' ');
    const rules = names.map((name) => `${matches[name]} counter name of-${name};`).join(' ');
    this.rules('internet', 'count', `${counters} chain forward { type filter hook forward priority -300; ${rules} }`);
  }

  /** How many packets have been counted under a name. */
  counted(name) {
    const { nftables } = JSON.parse(this.run('internet', 'nft', '--json', 'list', 'counter', 'inet', 'of-count', `of-${name}`));
    return nftables.find(({ counter }) => counter).counter.packets;
  }

  /** The client has this way, too, and prefers it from now on: 'eth0', or 'wlan0'. */
  join(device) {
    ip('client', `link set ${device} up`);
    // The system takes IPv6 addresses away with the link.
    if (this.#families.includes(6)) ip('client', `-6 address replace ${CLIENT[device][6]}/64 dev ${device}`);
    this.#route('client', 'default', end(device, 'router'));
  }

  /** The client has this way no more. */
  leave(device) {
    ip('client', `link set ${device} down`);
  }

  /** The client goes on over its other way: 'eth0', or 'wlan0' as in the beginning. The old one is gone once the new one is there. */
  use(device) {
    this.join(device);
    this.leave(device === 'eth0' ? 'wlan0' : 'eth0');
  }

  /** As it was made: no NAT, no firewall, nothing counted, whole packets, the client on wlan0. */
  reset() {
    for (const node of ['router', 'internet']) this.run(node, 'nft', 'flush', 'ruleset');
    for (const node of ['router', 'internet']) this.#forget(node);
    this.mtu(1500);
    const isUp = (device) => ip('client', `-json link show ${device}`).includes('"UP"');
    if (!isUp('wlan0') || isUp('eth0')) this.use('wlan0');
  }

  /** Removes everything. Nothing that was started in a node may be running. */
  close() {
    for (const node of NODES) {
      try {
        ip(HERE, `netns delete ${node}`);
      } catch {
        // It was not made.
      }
    }
    try {
      ip(HERE, 'link delete backbone0');
    } catch {
      // It went with its other end.
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
