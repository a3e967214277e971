// Records what the clients offer: `node record.js FOLDER` writes an offer per client and role, and a page with their versions.

import { writeFileSync } from 'node:fs';

import { poll } from '../browser/poll.js';
import { Server } from '../browser/server.js';
import { launchChromium, launchFirefox } from './browser.js';
import { clients } from './clients.js';
import { Recorder } from './recorder.js';

const folder = process.argv[2];
const ADDRESS = process.env.SLUICE_INTEROP_ADDRESS;

/** The file, who sends it, and what it is told: by its table's name, in that role, with that codec. */
const OFFERS = [
  ['firefox-publish', 'Firefox', 'publish', ''],
  ['firefox-watch', 'Firefox', 'watch', ''],
  ['gstreamer-whipsink', 'GStreamer', 'publish', 'VP8'],
  ['gstreamer-whipsink-h264', 'GStreamer', 'publish', 'H264'],
  ['gstreamer-whepsrc', 'GStreamer', 'watch', ''],
  ['libdatachannel-publish', 'libdatachannel, as OBS', 'publish', 'H264'],
  ['libdatachannel-watch', 'libdatachannel', 'watch', 'H264'],
  ['ffmpeg', 'FFmpeg', 'publish', 'H264'],
  ['ffmpeg-video-only', 'FFmpeg', 'publish', 'H264', { silent: true, more: ['-preset', 'veryfast', '-profile:v', 'high'] }],
  ['pyav', 'PyAV', 'publish', 'H264'],
  ['libwebrtc-publish', 'libwebrtc', 'publish', 'VP8'],
  ['werift-publish', 'werift', 'publish', 'VP8'],
  ['aiortc-publish', 'aiortc, balanced', 'publish', ''],
  ['aiortc-publish-max-bundle', 'aiortc, max-bundle', 'publish', ''],
  ['aiortc-watch', 'aiortc, balanced', 'watch', ''],
];

const REMARKS = { 'libdatachannel-publish': ', with the lines that OBS Studio gives it, and like its without candidates' };

const OTHERS = `
These are not recorded by the run:

| offer | from |
| --- | --- |
| chromium-publish, chromium-publish-max-bundle, chromium-simulcast-data, chromium-watch | recorded from Chromium 156 |
| firefox-simulcast | recorded from Firefox ESR 153.8.0, three rids given to \`addTransceiver\` |
| chromium-simulcast-munged | chromium-publish with a group of three SSRCs, as pages write it that change the SDP |
| firefox-h264-publish, firefox-h264-watch | written after Firefox 144 with its OpenH264 plugin, which no registry has |
| libdatachannel-old | written after libdatachannel 0.18, which no registry has |
| obs | written after OBS Studio 32, which no registry has with WHIP |
| obs-simulcast | written after OBS Studio 32 with three layers: rids in place of SSRCs |
| gstreamer-simulcast | gstreamer-whipsink with the lines of webrtcbin for three rids |
| webrtcbin-watch | written after webrtcbin with VP8, VP9 and H264 |
| safari-publish, safari-watch | written after what Safari sends: it runs on Apple's systems only |
`;

const server = await Server.start({ mediaIp: ADDRESS });
const recorder = await Recorder.start(server.http, folder);
const browsers = { chromium: await launchChromium(), firefox: await launchFirefox() };
const { publishers, viewers } = clients(browsers);
const rows = [];
for (const [name, sender, role, codec, more] of OFFERS) {
  const { start, version } = [...(role === 'publish' ? publishers : viewers), ...publishers].find((each) => each.name === sender);
  const url = `${recorder.url}/${role === 'publish' ? 'whip' : 'whep'}/${name}`;
  recorder.expect(new URL(url).pathname, name);
  const client = await start({ server: recorder.url, url, role, codec, stream: name, address: ADDRESS, ...more });
  await poll(`the offer ${name}: ${client.log()}`, () => recorder.has(name), { timeout: 20_000 });
  await client.stop();
  rows.push(`| ${name} | ${version}${REMARKS[name] ?? ''} |`);
  console.log(`${name}: ${version}`);
}
const head = '# Golden offers\n\nWhat real clients POST, byte for byte, recorded by `make interop-record`:\n\n| offer | client |\n| --- | --- |\n';
writeFileSync(`${folder}/README.md`, `${head}${rows.join('\n')}\n${OTHERS}`);
await Promise.allSettled(Object.values(browsers).map((browser) => browser.close()));
recorder.stop();
await server.stop();
process.exit(0);
