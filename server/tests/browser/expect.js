// What "the media is all right" means, in one place.

import assert from 'node:assert/strict';

import { missing } from './measure.js';
import { overTime, poll } from './poll.js';

const STAGES = ['signaling', 'ice', 'dtls', 'fingerprint', 'srtp', 'media'];
const FIRST_FRAME_MS = 1000;
/** Windows of which one has to be right, each this long at least: the machine may pause in the others. */
const WINDOWS = 3;
const WINDOW_MS = 2000;

/** The viewer decodes at the publisher's rate for `ms`, hears audio, and misses nothing. */
export async function expectFlow(publisher, viewer, ms = 5000) {
  await viewer.unmute();
  const sample = () => Promise.all([publisher.figures(), viewer.figures()]);
  let seen;
  let fault;
  for (let window = 1; window <= WINDOWS; window += 1) {
    const [before, later] = await overTime(Math.max(ms, WINDOW_MS), sample);
    seen = later[1];
    fault = faultOf(viewer, before, later);
    if (!fault) break;
  }
  assert.ok(!fault, fault);
  expectNothingLost(viewer, seen);
}

/** What is wrong between two samples of a publisher's figures and a viewer's; nothing if all is right. */
function faultOf(viewer, [sentBefore, seenBefore], [sentLater, seenLater]) {
  // The two pages are asked at different moments: each counts by its own time.
  const rate = (before, later, count) => (1000 * (count(later) - count(before))) / (later.at - before.at);
  const sent = rate(sentBefore, sentLater, (figures) => figures.sent.video?.framesSent);
  const decoded = rate(seenBefore, seenLater, (figures) => figures.received.video?.framesDecoded);
  const [before, later] = [seenBefore, seenLater].map(({ received }) => received.audio?.totalAudioEnergy);
  // Chromium's fake camera gives 20 frames a second; half of it would still show that the source runs.
  if (!(sent >= 10)) return `the publisher sent only ${sent.toFixed(1)} frames a second`;
  if (!(decoded >= 0.9 * sent)) return `${viewer.name} decoded ${decoded.toFixed(1)} of the ${sent.toFixed(1)} frames sent a second`;
  if (!(later > before)) return `${viewer.name}: no audio: the audio energy stays at ${before}`;
  return undefined;
}

function expectNothingLost(viewer, figures) {
  assert.ok(missing(figures) <= 0, `${viewer.name}: lost ${missing(figures)} video packets`);
  assert.equal(figures.received.audio.packetsLost, 0, `${viewer.name}: lost audio packets`);
}

/** Both legs are DTLS-SRTP with AES-GCM. */
export function expectSecure(peer, { transport }) {
  assert.equal(transport.dtlsState, 'connected', `${peer.name}: DTLS`);
  assert.match(transport.srtpCipher, /^(SRTP_)?AEAD_AES_(128|256)_GCM$/, `${peer.name}: SRTP cipher`);
}

/** The first frame was shown within a second of the viewer's POST. */
export async function expectQuickStart(scenario, viewer) {
  const ms = await scenario.firstFrame(viewer);
  assert.ok(ms <= FIRST_FRAME_MS, `${viewer.name}: the first frame came ${Math.round(ms)} ms after the POST`);
}

/** The latest session of a stream in a role has gone well through all six stages, as the admin API tells it. */
export async function expectLedgerDone(server, stream, role) {
  let session;
  await poll(`the ledger of ${stream}'s ${role} to be done`, async () => {
    session = (await server.sessionsOf(stream, role)).at(-1);
    return session?.stages.every(({ state }) => state === 'done');
  }).catch((error) => {
    throw new Error(`${error.message}: ${JSON.stringify(session?.stages)}`);
  });
  assert.deepEqual(session.stages.map(({ stage }) => stage), STAGES);
  for (const { stage, started_ms: started, ended_ms: ended } of session.stages) {
    assert.ok(started >= 0 && ended >= started, `${stage} began at ${started} and ended at ${ended}`);
  }
  return session;
}
