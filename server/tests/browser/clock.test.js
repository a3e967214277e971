// Publishers whose RTP clock is wrong, and uplinks that stall: what a viewer's own jitter buffer makes of it. The publisher
// is aiortc, which takes whatever timestamps it is given; a browser has no wrong clock.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { jitterBufferDelays, lipOffset, median } from './measure.js';
import { overTime, poll, series } from './poll.js';
import { suite } from './scenario.js';
import { TARGET } from './target.js';

const PYTHON = `${TARGET}/venv/bin/python`;
const SCRIPT = fileURLToPath(new URL('../aiortc/wrong_clock.py', import.meta.url));
const WINDOW = 4000;
const WINDOWS = 8;
/** Windows until Chromium has worked off what its audio buffer took in before it played. */
const START = 2;
/** Of the windows after that, those that may fall short as the machine pauses: a fault of the server spoils them all. */
const PAUSES = 1;
/** No jitter buffer holds media for longer, in milliseconds: of a good stream it is 40 to 150, and more on a busy machine. */
const LONGEST = 500;
/** Offset of audio and video that hardly anybody notices, in milliseconds. */
const IN_SYNC = 100;

/** Runs `body` while an aiortc publisher with this clock sends. */
async function withPublisher(url, flags, body) {
  const child = spawn(PYTHON, [SCRIPT, url, ...flags], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(`it ended with ${signal ?? `status ${code}`}`));
  });
  try {
    const publishing = new Promise((resolve) => createInterface({ input: child.stdout }).once('line', resolve));
    const said = await Promise.race([publishing, ended]);
    assert.equal(said, 'publishing', `${PYTHON} ${SCRIPT}: ${said}`);
    await body();
  } finally {
    child.kill('SIGTERM');
    await ended;
  }
}

/** Watches for half a minute: the jitter buffers hold nothing back, frames are decoded as they are sent, lips stay in sync. */
async function expectLive(scenario, stream, flags) {
  await withPublisher(`${scenario.server.http}/whip/${stream}`, flags, async () => {
    const viewer = await scenario.watch(stream);
    await scenario.firstFrame(viewer);
    await viewer.unmute();
    await viewer.until('to get sender reports', ({ received: { video, audio } }) => video.estimatedPlayoutTimestamp && audio.estimatedPlayoutTimestamp);
    const short = [];
    for (let turn = 1; turn <= WINDOWS; turn += 1) {
      const [before, later] = await overTime(WINDOW, () => viewer.figures());
      const { video, audio } = jitterBufferDelays(before, later);
      const decoded = later.received.video.framesDecoded - before.received.video.framesDecoded;
      const told = `window ${turn}: the jitter buffers held video for ${Math.round(video)} ms and audio for ${Math.round(audio)} ms, ${decoded} frames`;
      console.log(told);
      const isGood = video <= LONGEST && audio <= LONGEST && decoded >= (0.8 * 30 * WINDOW) / 1000;
      if (turn > START && !isGood) short.push(told);
    }
    assert.ok(short.length <= PAUSES, short.join('; '));
    await poll('audio and video to be in sync', async () => {
      const offset = median((await series(1000, 200, () => viewer.figures())).map(lipOffset));
      console.log(`the video is ${Math.round(offset)} ms ahead of the audio`);
      return Math.abs(offset) <= IN_SYNC;
    }, { timeout: 15_000 });
  });
}

// One kind of ICE is enough: it has no part in what is tested.
suite('clocks', { ice: 'lite' }, (test) => {
  // F-06
  for (const [name, drift] of [['3 % fast', 0.03], ['3 % slow', -0.03], ['20 % fast', 0.2]]) {
    test(`a clock that runs ${name} costs no latency`, (scenario) => expectLive(scenario, `drift${drift}`.replaceAll(/\W/g, '-'), [`--drift=${drift}`]));
  }

  // F-04
  for (const step of [-5, 30]) {
    test(`a clock that steps by ${step} s every ten seconds is followed`, (scenario) => expectLive(scenario, `step${step}`.replaceAll(/\W/g, '-'), [`--step=${step}`]));
  }
});
