// werift, WebRTC written in TypeScript, as a publisher of RTP that FFmpeg encodes.

import { MediaStreamTrack, RTCPeerConnection, RTCRtpCodecParameters, useNACK, usePLI } from 'werift';

import { PAYLOAD_TYPES, encode, isRtcp } from './media.js';
import { options, serve } from './protocol.js';
import { end, post } from './whip.js';

const { url, codec, ffmpeg } = options;
const PARAMETERS = { H264: 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f' };

const pc = new RTCPeerConnection({
  codecs: {
    audio: [new RTCRtpCodecParameters({ mimeType: 'audio/opus', clockRate: 48000, channels: 2, payloadType: PAYLOAD_TYPES.audio })],
    video: [
      new RTCRtpCodecParameters({
        mimeType: `video/${codec}`,
        clockRate: 90000,
        payloadType: PAYLOAD_TYPES.video,
        parameters: PARAMETERS[codec],
        rtcpFeedback: [useNACK(), usePLI()],
      }),
    ],
  },
});
const tracks = { video: new MediaStreamTrack({ kind: 'video', streamId: 'interop' }), audio: new MediaStreamTrack({ kind: 'audio', streamId: 'interop' }) };
for (const track of Object.values(tracks)) pc.addTransceiver(track, { direction: 'sendonly' });
const connected = pc.connectionStateChange.watch((state) => state === 'connected');
await pc.setLocalDescription(await pc.createOffer());
const { answer, session } = await post(url, pc.localDescription.sdp);
await pc.setRemoteDescription({ type: 'answer', sdp: answer });
await connected;

// werift writes the SSRC that it offered, and reports of its own.
const encoder = await encode(ffmpeg, codec, { video: 1, audio: 2 }, (kind, packet) => !isRtcp(packet) && tracks[kind].writeRtp(packet));
await serve({
  figures: () => ({ frames: encoder.counts.video, audio: encoder.counts.audio }),
  leave: async () => {
    encoder.stop();
    await end(session);
    await pc.close();
  },
});
