// FFmpeg as the encoder and the decoder of clients that only move RTP: libdatachannel and werift.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';

import { shorten } from './vp9.js';

export const FRAMES = 15;
export const PAYLOAD_TYPES = { video: 96, audio: 111 };

const SOURCE = ['-f', 'lavfi', '-i', `testsrc2=size=320x240:rate=${FRAMES}`];
const TONE = ['-f', 'lavfi', '-i', 'sine=frequency=440:sample_rate=48000'];
const QUIET = ['-nostdin', '-hide_banner', '-loglevel', 'error'];
// None of these clients passes the server's requests for keyframes on, so there is one each second.
const GOP = ['-g', `${FRAMES}`];

const VIDEO_ENCODERS = {
  H264: ['libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-profile:v', 'baseline', '-x264-params', 'repeat-headers=1'],
  H265: ['libx265', '-preset', 'ultrafast', '-tune', 'zerolatency', '-x265-params', 'repeat-headers=1:log-level=error'],
  VP8: ['libvpx', '-deadline', 'realtime', '-cpu-used', '8'],
  VP9: ['libvpx-vp9', '-deadline', 'realtime', '-cpu-used', '8'],
  AV1: ['libaom-av1', '-usage', 'realtime', '-cpu-used', '8', '-lag-in-frames', '0'],
};
export const AUDIO_ENCODER = ['-c:a', 'libopus', '-b:a', '64k', '-ac', '2'];

/** The arguments that make FFmpeg encode the test picture as `codec`. */
export function videoEncoder(codec) {
  return ['-c:v', ...VIDEO_ENCODERS[codec], '-pix_fmt', 'yuv420p', '-b:v', '400k', ...GOP];
}

/** The inputs at the pace of a camera: a moving picture and a tone. */
export const INPUTS = ['-re', ...SOURCE, '-re', ...TONE];

export const ENCODER_FLAGS = QUIET;

async function bound() {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return socket;
}

export const isRtcp = (packet) => packet[1] >= 192 && packet[1] <= 223;

/** Encodes the test picture and a tone until stopped; `send(kind, packet)` gets their RTP and RTCP. */
export async function encode(ffmpeg, codec, ssrcs, send) {
  const counts = { video: 0, audio: 0 };
  const sockets = {};
  for (const kind of ['video', 'audio']) {
    sockets[kind] = await bound();
    sockets[kind].on('message', (packet) => {
      if (!isRtcp(packet) && (kind === 'audio' || packet[1] & 0x80)) counts[kind] += 1;
      send(kind, packet);
    });
  }
  const output = (kind) => {
    const { port } = sockets[kind].address();
    // FFmpeg calls its payload formats for VP9 and AV1 experimental.
    const flags = ['-strict', 'experimental', '-f', 'rtp', '-payload_type', `${PAYLOAD_TYPES[kind]}`, '-ssrc', `${ssrcs[kind] | 0}`];
    return [...flags, `rtp://127.0.0.1:${port}?rtcpport=${port}&pkt_size=1200`];
  };
  const arguments_ = [...QUIET, ...INPUTS];
  arguments_.push('-map', '0:v', ...videoEncoder(codec), ...output('video'));
  arguments_.push('-map', '1:a', ...AUDIO_ENCODER, ...output('audio'));
  // Its standard output is the session description, which nobody reads.
  const child = spawn(ffmpeg, arguments_, { stdio: ['ignore', 'ignore', 'inherit'] });
  child.once('exit', (code) => code && process.exit(1));
  return {
    /** Frames and audio packets encoded so far. */
    counts,
    stop() {
      child.removeAllListeners('exit');
      child.kill('SIGKILL');
      Object.values(sockets).forEach((socket) => socket.close());
    },
  };
}

/** The session description by which FFmpeg reads RTP from a port of the loopback address. */
function description({ kind, port, payloadType, codec }) {
  const media = kind === 'audio' ? 'opus/48000/2' : `${codec}/90000`;
  return `v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=${kind} ${port} RTP/AVP ${payloadType}\r\na=rtpmap:${payloadType} ${media}\r\n`;
}

/** Waits until a process of this network listens on a UDP port: what came before would be lost, the first keyframe with it. */
async function listening(port) {
  const wanted = port.toString(16).toUpperCase().padStart(4, '0');
  for (const deadline = Date.now() + 8000; Date.now() < deadline; await new Promise((resolve) => setTimeout(resolve, 20))) {
    if (readFileSync('/proc/net/udp', 'utf8').includes(`:${wanted} `)) return;
  }
  throw new Error('FFmpeg does not listen');
}

/** Decodes one medium of RTP; `accept(packet)` takes a packet, `bytes` counts and `energy` sums what was decoded. */
export async function decode(ffmpeg, { kind, payloadType, codec }) {
  const probe = await bound();
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  const input = ['-protocol_whitelist', 'pipe,rtp,udp', '-analyzeduration', '500000', '-f', 'sdp', '-i', 'pipe:0'];
  // A picture of 16 × 16 grey points is enough to be counted.
  const raw = kind === 'video' ? ['-vf', 'scale=16:16', '-pix_fmt', 'gray', '-fps_mode', 'passthrough', '-f', 'rawvideo'] : ['-ac', '1', '-ar', '48000', '-f', 's16le'];
  const child = spawn(ffmpeg, ['-hide_banner', '-loglevel', 'fatal', '-threads', '1', ...input, ...raw, 'pipe:1'], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(description({ kind, port, payloadType, codec }));
  const decoded = { bytes: 0, energy: 0 };
  child.stdout.on('data', (chunk) => {
    decoded.bytes += chunk.length;
    if (kind === 'audio') for (let at = 0; at + 1 < chunk.length; at += 2) decoded.energy += (chunk.readInt16LE(at) / 32768) ** 2;
  });
  await listening(port);
  const socket = await bound();
  return {
    /** Decoded frames. */
    get frames() {
      return Math.floor(decoded.bytes / 256);
    },
    /** The sum of the squares of the decoded samples. */
    get energy() {
      return decoded.energy;
    },
    accept: (packet) => socket.send(codec === 'VP9' && kind === 'video' ? shorten(packet) : packet, port, '127.0.0.1'),
    stop() {
      child.kill('SIGKILL');
      socket.close();
    },
  };
}
