// FFmpeg's own WHIP muxer. It says how many frames it has sent by its progress, and leaves with a DELETE of its own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { AUDIO_ENCODER, ENCODER_FLAGS, INPUTS, videoEncoder } from './media.js';
import { options, serve } from './protocol.js';

const { url, codec, ffmpeg, silent, more = [] } = options;
const progress = ['-progress', 'pipe:1', '-stats_period', '0.1'];
const sound = silent ? [] : ['-map', '1:a', ...AUDIO_ENCODER];
const child = spawn(ffmpeg, [...ENCODER_FLAGS, ...progress, ...INPUTS, '-map', '0:v', ...videoEncoder(codec), ...more, ...sound, '-f', 'whip', url], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
const counts = { frames: 0, audio: 0 };
createInterface({ input: child.stdout }).on('line', (line) => {
  const [name, value] = line.split('=');
  if (name === 'frame') counts.frames = Number(value);
  // The clock of the output runs with both media.
  if (name === 'out_time_us') counts.audio = Number(value) || 0;
});
const ended = once(child, 'exit');
child.once('exit', (code) => code && process.exit(1));
await serve({
  figures: () => counts,
  leave: async () => {
    child.removeAllListeners('exit');
    const gone = once(child, 'exit');
    child.kill('SIGINT');
    await Promise.race([gone, ended]);
  },
});
