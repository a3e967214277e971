// Publishers that send several layers, and viewers whose links change: each gets the layer that its link carries.

import assert from 'node:assert/strict';

import { lipOffset, median } from './measure.js';
import { overTime, poll, series } from './poll.js';
import { suite } from './scenario.js';

/** What Chromium sends of a capture of this size: 3 layers, of which the lowest is a quarter as wide. */
const WIDTH = 960;
const HEIGHT = 540;
/** Rate of the highest layer in kbit/s; the page gives the lower ones of simulcast 28 % and 8 % of it. */
const BITRATE = 1000;
/** The links one after the other, in kbit/s. */
const LINKS = [600, 150, 3000];
/**
 * The longest that a picture may stand still on the way down and up, in ms. Usual are up to 1,000 ms and nothing; what is more is for
 * machines that have other things to do. docs/layers.md has what was measured.
 */
const FROZEN_DOWN = 4000;
const FROZEN_UP = 1500;
/** Of the frames of the layer that fits so many are seen; every other frame of a larger picture goes before a smaller picture. */
const SEEN = 0.7;
const SMOOTH = 0.5;
/** What a layer may take of a link so that it fits for certain, whatever the estimate does. */
const USABLE = 0.7;
/** What the sound takes of a link, with headers. */
const SOUND = 60;
/** Time for a layer that fits, in ms; four seconds are enough where nothing else runs. */
const SETTLED = 6000;
/** Time for the highest layer once the link carries it again. */
const RISEN = 20_000;
const STEADY = 3000;
/** In ms: what of the offset of lips a switch may change. */
const IN_SYNC = 45;

/**
 * Runs inside a publisher's page: a camera whose picture takes whatever bitrate there is, and the fake microphone. Its detail is
 * so fine that little of it is left in a smaller picture: the lower layers need not leave out frames. Most of it moves, so that a
 * keyframe is not much larger than another frame: an encoder makes good for a large one by leaving out frames of the highest layer
 * for a second, which is no freeze of ours.
 */
function busyCamera({ width, height }) {
  const { getUserMedia } = MediaDevices.prototype;
  MediaDevices.prototype.getUserMedia = async function ({ audio }) {
    const grain = new OffscreenCanvas(64, 64);
    const context = grain.getContext('2d');
    const pixels = context.createImageData(64, 64);
    for (let index = 0; index < pixels.data.length; index += 4) {
      pixels.data.fill(128 + 100 * (Math.random() - 0.5), index, index + 3);
      pixels.data[index + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const picture = canvas.getContext('2d', { alpha: false });
    picture.fillStyle = 'gray';
    const draw = () => {
      picture.fillRect(0, 0, width, height);
      for (let left = 0; left < width; left += 64) picture.drawImage(grain, left, 0);
      for (let block = 0; block < 20; block += 1) picture.drawImage(grain, (width - 64) * Math.random(), (height - 64) * Math.random());
    };
    setInterval(draw, 60);
    const stream = canvas.captureStream();
    (await getUserMedia.call(this, { audio })).getTracks().forEach((track) => stream.addTrack(track));
    return stream;
  };
}

/** A publisher whose highest layer has the whole size. */
async function publish(scenario, stream, { codec, layers }) {
  const prepared = { init: busyCamera, argument: { width: WIDTH, height: HEIGHT } };
  const publisher = await scenario.publish(stream, { codec, layers, bitrate: `${BITRATE}` }, prepared);
  await scenario.publishing(publisher);
  await poll('all layers to be there', async () => {
    return new Set((await layersOf(scenario, stream)).map(({ width }) => width)).size === 3;
  }, { timeout: 30_000 });
  return publisher;
}

/** The layers that are sent at present, the lowest quality first, with the width that the publisher gives to each size. */
async function layersOf(scenario, stream) {
  const { tracks } = await scenario.server.stream(stream);
  const sent = tracks.find(({ kind }) => kind === 'video').layers.filter(({ bitrate }) => bitrate > 0);
  const size = ({ encoding, spatial }) => `${encoding} ${spatial}`;
  const sizes = [...new Set(sent.map(size))];
  return sent.map((layer) => ({ ...layer, width: WIDTH / 2 ** (2 - sizes.indexOf(size(layer))) }));
}

/** The greatest width that a link carries, by what the server says of the layers; the lowest layer's if it carries none. */
async function carried(scenario, stream, kilobits) {
  const layers = await layersOf(scenario, stream);
  const fitting = layers.filter(({ bitrate }) => bitrate / 1000 + SOUND <= kilobits);
  const widths = (fitting.length ? fitting : layers).map(({ width }) => width);
  return fitting.length ? Math.max(...widths) : Math.min(...widths);
}

/** The part of the frames that a link carries for certain: those of the temporal layers of the lowest picture that fit. */
async function carriedFrames(scenario, stream, kilobits) {
  const layers = await layersOf(scenario, stream);
  const lowest = layers.filter(({ width }) => width === layers[0].width);
  const fitting = lowest.filter(({ bitrate }) => (1.1 * bitrate) / 1000 + SOUND <= USABLE * kilobits);
  return (fitting.at(-1) ?? lowest[0]).frame_rate / lowest.at(-1).frame_rate;
}

const video = async (viewer) => (await viewer.figures()).received.video;
const freezes = ({ totalFreezesDuration: seconds = 0 }) => 1000 * seconds;

/** The median offset of lips over a second, once both are played. */
function lips(viewer) {
  return poll('sound and picture to be played', async () => {
    const offsets = (await series(1000, 150, () => viewer.figures())).map(lipOffset).filter(Number.isFinite);
    return offsets.length > 0 && { offset: median(offsets) };
  }).then(({ offset }) => offset);
}

/** Brings a viewer's link to a rate; tells how it went. */
async function change(scenario, stream, { publisher, viewer, relay, spatial }, kilobits) {
  const before = await video(viewer);
  const begun = Date.now();
  await relay.link({ down: { rate: kilobits, queue: 1000 } });
  const isDown = kilobits < BITRATE;
  const fits = await poll(`${viewer.name}: a layer for ${kilobits} kbit/s`, async () => {
    const [{ frameWidth }, most] = await Promise.all([video(viewer), carried(scenario, stream, kilobits)]);
    return (isDown ? frameWidth <= most : frameWidth === WIDTH) && { frameWidth, most, ms: Date.now() - begun };
  }, { timeout: isDown ? SETTLED : RISEN });
  const both = async () => ({ sent: (await publisher.figures()).sent.video.framesSent, ...(await video(viewer)) });
  const [, from] = await overTime(STEADY, both);
  const [, until] = await overTime(STEADY, both);
  // A busy machine makes fewer frames, and what is between two of them is nobody's freeze.
  const sent = Math.round((until.sent - from.sent) / spatial);
  const told = {
    'frame every, ms': Math.round(STEADY / Math.max(1, sent)),
    'sent in 3 s': sent,
    'kbit/s': kilobits,
    'width': until.frameWidth,
    'most': fits.most,
    'ms': fits.ms,
    'of which fit, %': Math.round(100 * (await carriedFrames(scenario, stream, kilobits))),
    'frames in 3 s': until.framesDecoded - from.framesDecoded,
    'frozen, ms': Math.round(freezes(until) - freezes(before)),
    'keyframe requests': until.pliCount - before.pliCount,
    'lips, ms': Math.round(await lips(viewer)),
  };
  console.log(`${stream}: ${Object.entries(told).map(([name, value]) => `${name}: ${value}`).join(', ')}`);
  return { ...told, before, until };
}

// One kind of ICE is enough: it has no part in what is tested.
suite('layers', { ice: 'lite', shards: 1 }, (test) => {
  for (const [codec, layers] of [['VP8', 'simulcast'], ['H264', 'simulcast'], ['VP9', 'L3T3_KEY'], ['AV1', 'L3T3_KEY']]) {
    // RTCP-16, SDP-40
    test(`a viewer's ${codec} follows its link through the layers (${layers})`, async (scenario) => {
      const stream = `${codec}-${layers}`.toLowerCase();
      const publisher = await publish(scenario, stream, { codec, layers });
      const relay = await scenario.relay();
      await relay.link({ down: { rate: 3000, queue: 1000 } });
      const viewer = await scenario.watch(stream, { through: relay });
      await scenario.firstFrame(viewer);
      // Chromium decodes no audio for a player that is muted.
      await viewer.page.evaluate(() => (document.querySelector('video').muted = false));
      await viewer.until('to see the whole size', ({ received }) => received.video.frameWidth === WIDTH, { timeout: RISEN });
      const decoder = (await video(viewer)).decoderImplementation;
      // The browser counts the frames of each spatial layer.
      const spatial = layers === 'simulcast' ? 1 : 3;
      // The lowest layer of AV1 has 100 kbit/s and more: with the sound it does not fit the narrowest link, where video comes and goes.
      for (const kilobits of LINKS.filter((kilobits) => codec !== 'AV1' || kilobits !== 150)) {
        const told = await change(scenario, stream, { publisher, viewer, relay, spatial }, kilobits);
        const interval = told['frame every, ms'];
        const slack = interval > 100 ? 4 * interval : 0;
        const most = (kilobits < BITRATE ? FROZEN_DOWN : FROZEN_UP) + slack;
        assert.ok(told['frozen, ms'] <= most, `it froze for ${told['frozen, ms']} ms on the way to ${kilobits} kbit/s`);
        const [seen, sent] = [told['frames in 3 s'], told['sent in 3 s']];
        const least = SEEN * Math.min(SMOOTH, told['of which fit, %'] / 100) * sent;
        assert.ok(seen >= least, `${seen} of ${sent} frames at ${kilobits} kbit/s`);
        assert.equal(told.until.decoderImplementation, decoder, 'the decoder is the one that it was');
      }
      assert.equal((await viewer.seen()).peers, 1, 'in one session');
    });
  }

  // EXT-H12: without the dependency descriptor a decoder takes the layers of one picture of AV1 for several pictures.
  test('a viewer that does not offer the dependency descriptor sees the lowest spatial layer of AV1', async (scenario) => {
    await publish(scenario, 'undescribed', { codec: 'AV1', layers: 'L3T3_KEY' });
    const init = () => delete RTCRtpTransceiver.prototype.getHeaderExtensionsToNegotiate;
    const viewer = await scenario.watch('undescribed', {}, { init });
    await scenario.firstFrame(viewer);
    const [from, until] = await overTime(STEADY, () => video(viewer));
    assert.equal(until.frameWidth, WIDTH / 4);
    assert.ok(until.framesDecoded - from.framesDecoded >= 20, `${until.framesDecoded - from.framesDecoded} frames in 3 s`);
    assert.equal(until.pliCount, 0, 'nothing is missing');
  });

  // EXT-09, EXT-12
  test('a person chooses the layer on the page, and gives the choice back', async (scenario) => {
    await publish(scenario, 'chosen', { codec: 'VP8', layers: 'simulcast' });
    const viewer = await scenario.watch('chosen');
    await scenario.firstFrame(viewer);
    const { page } = viewer;
    const widthOf = (width) => viewer.until(`to see a width of ${width}`, ({ received }) => received.video.frameWidth === width, { timeout: RISEN });
    await widthOf(WIDTH);
    await viewer.page.evaluate(() => (document.querySelector('video').muted = false));
    const lipsBefore = await lips(viewer);
    const inSync = () => poll('lips to be in sync', async () => Math.abs((await lips(viewer)) - lipsBefore) <= IN_SYNC);
    const entry = await poll('the menu to have all layers', () => page.$$eval('#quality option', (options) => options.length > 3 && options.at(-1).value));
    await page.selectOption('#quality', entry);
    await widthOf(WIDTH / 4);
    await overTime(STEADY, async () => assert.equal((await video(viewer)).frameWidth, WIDTH / 4));
    await inSync();
    const [{ stats }] = await scenario.server.sessionsOf('chosen', 'viewer');
    assert.equal(stats.layer.encoding, (await layersOf(scenario, 'chosen'))[0].encoding, 'the operator sees it, too');
    await page.selectOption('#quality', '');
    await widthOf(WIDTH);
    await inSync();
    await poll('the page to say so', async () => (await page.innerText('#present')).startsWith(`${WIDTH} × ${HEIGHT}`));
    assert.equal(await page.innerText('#viewers'), '1 viewer');
  });
});
