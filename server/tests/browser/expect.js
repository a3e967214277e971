// What "the media is all right" means, in one place.

import assert from 'node:assert/strict';

import { overTime, poll } from './poll.js';

const STAGES = ['signaling', 'ice', 'dtls', 'fingerprint', 'srtp', 'media'];
const FIRST_FRAME_MS = 1000;

/** The viewer decodes at the publisher's rate for `ms`, hears audio, and misses nothing. */
export async function expectFlow(publisher, viewer, ms = 5000) {
  await viewer.unmute();
  const sample = async () => {
    const [from, to] = await Promise.all([publisher.figures(), viewer.figures()]);
    return { ...from.sent.video, ...to.received.video, energy: to.received.audio?.totalAudioEnergy, to };
  };
  const [before, later] = await overTime(ms, sample);
  const sent = later.framesSent - before.framesSent;
  const decoded = later.framesDecoded - before.framesDecoded;
  // Chromium's fake camera gives 20 frames a second; half of it would still show that the source runs.
  assert.ok(sent >= (10 * ms) / 1000, `the publisher sent only ${sent} frames in ${ms} ms`);
  assert.ok(decoded >= 0.9 * sent, `${viewer.name} decoded ${decoded} of the ${sent} frames sent in ${ms} ms`);
  assert.ok(later.energy > before.energy, `${viewer.name}: no audio: the audio energy stays at ${before.energy}`);
  expectNothingLost(viewer, later.to);
}

function expectNothingLost(viewer, { received }) {
  assert.equal(received.video.packetsLost, 0, `${viewer.name}: lost video packets`);
  assert.equal(received.audio.packetsLost, 0, `${viewer.name}: lost audio packets`);
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
