// Firefox and Chromium on the server's own pages, driven by WebDriver BiDi and by CDP.

import puppeteer from 'puppeteer-core';

const CHROMIUM = {
  browser: 'chrome',
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    // The run may be root, with whom the sandbox does not start.
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream',
    '--autoplay-policy=no-user-gesture-required',
    '--mute-audio',
  ],
};

const FIREFOX = {
  browser: 'firefox',
  executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
  extraPrefsFirefox: {
    'media.navigator.streams.fake': true,
    'media.navigator.permission.disabled': true,
    'media.autoplay.default': 0,
    'media.autoplay.blocking_policy': 0,
  },
};

/** A small picture, since every encoder and decoder shares the machine. */
const SMALL = { width: 320, height: 240, frameRate: 15 };

/** Runs in the page before its own scripts: what the camera gives. */
function setCamera(video) {
  const { getUserMedia } = MediaDevices.prototype;
  MediaDevices.prototype.getUserMedia = function (wanted) {
    return getUserMedia.call(this, { ...wanted, video: wanted.video && video });
  };
}

/** Runs in the page: what it has sent or received so far. */
async function figures() {
  const pc = window.sluice?.pc;
  if (!pc) return { frames: 0, audio: 0, lost: { video: 0, audio: 0 }, said: window.sluice?.error?.code };
  const reports = [...(await pc.getStats()).values()];
  const one = (type, kind) => reports.find((report) => report.type === type && report.kind === kind) ?? {};
  const codec = (rtp) => reports.find((report) => report.id === rtp.codecId)?.mimeType;
  const [sent, sound] = [one('outbound-rtp', 'video'), one('outbound-rtp', 'audio')];
  if (sent.id) return { frames: sent.framesSent ?? sent.framesEncoded ?? 0, audio: sound.packetsSent ?? 0, codec: codec(sent) };
  const [video, audio] = [one('inbound-rtp', 'video'), one('inbound-rtp', 'audio')];
  const player = document.querySelector('video');
  // A browser decodes no audio for a player that is muted.
  if (player?.muted) player.muted = false;
  return {
    frames: video.framesDecoded ?? 0,
    audio: audio.totalAudioEnergy ?? 0,
    lost: { video: video.packetsLost ?? 0, audio: audio.packetsLost ?? 0 },
    codec: codec(video),
    width: video.frameWidth ?? 0,
  };
}

const NAMES = { Chrome: 'Chromium', firefox: 'Firefox ESR' };

class Page {
  #page;
  #console = [];

  constructor(page) {
    this.#page = page;
    page.on('console', (message) => this.#console.push(message.text()));
    page.on('pageerror', (error) => this.#console.push(error.message));
  }

  static async open(browser, url, camera) {
    const page = new Page(await browser.newPage());
    await page.#page.evaluateOnNewDocument(setCamera, camera);
    await page.#page.goto(url);
    return page;
  }

  figures() {
    return this.#page.evaluate(figures);
  }

  evaluate(work, ...values) {
    return this.#page.evaluate(work, ...values);
  }

  log() {
    return this.#console.join('\n');
  }

  async stop() {
    await this.#page.evaluate(() => window.sluice?.stop()).catch(() => {});
    await this.#page.close();
  }
}

class Browser {
  #browser;

  constructor(browser, version) {
    this.#browser = browser;
    this.version = version;
  }

  static async launch(options) {
    // A signal ends the run, and with its namespace the browsers.
    const signals = { handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false };
    const browser = await puppeteer.launch({ headless: true, ...signals, ...options });
    const [name, version] = (await browser.version()).split('/');
    return new Browser(browser, `${NAMES[name]} ${version}`);
  }

  /** A page of its own; `camera` is what its camera gives, as constraints of a track. */
  open(url, camera = SMALL) {
    return Page.open(this.#browser, url, camera);
  }

  /** The video codecs that the browser lists for sending or receiving. */
  async codecs(url) {
    const page = await this.open(url);
    const list = await page.evaluate(() => {
      const names = (side) => side.getCapabilities('video').codecs.map(({ mimeType }) => mimeType.split('/')[1]);
      return { send: names(RTCRtpSender), receive: names(RTCRtpReceiver) };
    });
    await page.stop();
    return list;
  }

  close() {
    return this.#browser.close();
  }
}

export const launchChromium = () => Browser.launch(CHROMIUM);
export const launchFirefox = () => Browser.launch(FIREFOX);
