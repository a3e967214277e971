// libdatachannel: it publishes with the lines of SDP that OBS has (no candidates, no feedback but NACK and PLI) and with RTP that
// FFmpeg packetizes, and watches with FFmpeg as its decoder.

import nodeDataChannel from 'node-datachannel';

import { PAYLOAD_TYPES, decode, encode } from './media.js';
import { options, serve } from './protocol.js';
import { Reception } from './reception.js';
import { end, post } from './whip.js';

const { url, role, codec, ffmpeg, address } = options;
const SSRCS = { audio: 1804289383, video: 1804289384 };
const AUDIO_FORMAT = 'minptime=10;maxaveragebitrate=96000;stereo=1;sprop-stereo=1;useinbandfec=1';
const WATCHED = { H264: 96, H265: 97, VP8: 98, VP9: 99, AV1: 100 };

function addCodec(video, name, payloadType) {
  if (name === 'H264') video.addH264Codec(payloadType);
  else if (name === 'H265') video.addH265Codec(payloadType);
  else if (name === 'VP8') video.addVP8Codec(payloadType);
  else if (name === 'VP9') video.addVP9Codec(payloadType);
  else video.addAV1Codec(payloadType);
}

const pc = new nodeDataChannel.PeerConnection('interop', { iceServers: [], bindAddress: address, disableAutoNegotiation: true });

/** OBS gathers its candidates after the answer, by a call that this binding lacks: its offer has none yet. */
function ungathered(offer) {
  const none = offer.replace(/^a=(candidate:.*|end-of-candidates)\r\n/gm, '');
  return none.replace(/^(m=\w+) \d+/gm, '$1 9').replace(/^c=.*\r$/gm, 'c=IN IP4 0.0.0.0\r');
}

async function join() {
  pc.setLocalDescription('offer');
  const { answer, session } = await post(url, ungathered(pc.localDescription().sdp));
  const connected = new Promise((resolve, reject) => {
    pc.onStateChange((state) => {
      if (state === 'connected') resolve();
      if (state === 'failed') reject(new Error('the connection failed'));
    });
  });
  pc.setRemoteDescription(answer, 'answer');
  await connected;
  return session;
}

async function publish() {
  const audio = new nodeDataChannel.Audio('0', 'SendOnly');
  audio.addOpusCodec(PAYLOAD_TYPES.audio, AUDIO_FORMAT);
  const video = new nodeDataChannel.Video('1', 'SendOnly');
  addCodec(video, codec, PAYLOAD_TYPES.video);
  video.parseSdpLine('a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid');
  const tracks = {};
  for (const [kind, section] of Object.entries({ audio, video })) {
    section.addSSRC(SSRCS[kind], 'interop', 'interop', `interop-${kind}`);
    tracks[kind] = pc.addTrack(section);
    tracks[kind].setMediaHandler(new nodeDataChannel.RtcpNackResponder());
  }
  const session = await join();
  const encoder = await encode(ffmpeg, codec, SSRCS, (kind, packet) => tracks[kind].isOpen() && tracks[kind].sendMessageBinary(packet));
  await serve({
    figures: () => ({ frames: encoder.counts.video, audio: encoder.counts.audio }),
    leave: async () => {
      encoder.stop();
      // As OBS does: the connection first, then the session.
      pc.close();
      await end(session);
    },
  });
}

async function watch() {
  const audio = new nodeDataChannel.Audio('0', 'RecvOnly');
  audio.addOpusCodec(PAYLOAD_TYPES.audio, AUDIO_FORMAT);
  const video = new nodeDataChannel.Video('1', 'RecvOnly');
  for (const [name, payloadType] of Object.entries(WATCHED)) addCodec(video, name, payloadType);
  const tracks = { audio: pc.addTrack(audio), video: pc.addTrack(video) };
  const payloadTypes = { audio: PAYLOAD_TYPES.audio, video: WATCHED[codec] };
  const receptions = {};
  const decoders = {};
  for (const [kind, track] of Object.entries(tracks)) {
    track.setMediaHandler(new nodeDataChannel.RtcpReceivingSession());
    receptions[kind] = new Reception();
    decoders[kind] = await decode(ffmpeg, { kind, codec, payloadType: payloadTypes[kind] });
    track.onMessage((packet) => {
      if ((packet[1] & 0x7f) !== payloadTypes[kind]) return;
      receptions[kind].note(packet);
      decoders[kind].accept(packet);
    });
  }
  const session = await join();
  await serve({
    figures: () => ({
      frames: decoders.video.frames,
      audio: decoders.audio.energy,
      lost: { video: receptions.video.lost, audio: receptions.audio.lost },
    }),
    leave: async () => {
      Object.values(decoders).forEach((decoder) => decoder.stop());
      pc.close();
      await end(session);
    },
  });
}

await (role === 'publish' ? publish() : watch());
