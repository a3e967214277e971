// Runs inside every page before the page's own scripts: it writes down when things happen. The one thing that it
// changes is the size of the camera's video: two encoders, two decoders and the server share the machine of a test.
// All times are milliseconds of the machine's wall clock with fractions, so that those of two pages can be compared.

export function probe() {
  const now = () => performance.timeOrigin + performance.now();
  const log = { posts: [], deletes: [], connected: [], frames: [], frameCount: 0, peers: 0 };
  window.__probe = log;

  const fetch = window.fetch;
  window.fetch = async (resource, options) => {
    const method = (options?.method ?? resource?.method ?? 'GET').toUpperCase();
    if (method === 'DELETE') log.deletes.push({ at: now() });
    // Offers alone: a viewer's page asks for events by POST, too.
    if (method !== 'POST' || !String(options?.body).startsWith('v=0')) return fetch(resource, options);
    const post = { at: now(), url: String(resource?.url ?? resource) };
    log.posts.push(post);
    const response = await fetch(resource, options);
    Object.assign(post, { status: response.status, answered: now(), location: response.headers.get('location') });
    return response;
  };

  const { getUserMedia } = MediaDevices.prototype;
  MediaDevices.prototype.getUserMedia = function (wanted) {
    return getUserMedia.call(this, { ...wanted, video: wanted.video && { width: 640, height: 360 } });
  };

  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(...args) {
      super(...args);
      this.hasPeer = false;
      this.addEventListener('connectionstatechange', () => {
        if (this.connectionState === 'connected') log.connected.push(now());
      });
    }

    // Pages make others as well, to learn of the machine's addresses.
    setRemoteDescription(...args) {
      if (!this.hasPeer) log.peers += 1;
      this.hasPeer = true;
      return super.setRemoteDescription(...args);
    }
  };

  // Every frame that a video element shows, from the moment it is given a stream.
  const source = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, 'srcObject');
  const watched = new WeakSet();
  Object.defineProperty(HTMLMediaElement.prototype, 'srcObject', {
    ...source,
    set(stream) {
      source.set.call(this, stream);
      if (!(this instanceof HTMLVideoElement) || watched.has(this)) return;
      watched.add(this);
      const shown = () => {
        log.frameCount += 1;
        log.frames.push(now());
        if (log.frames.length > 2000) log.frames.splice(1, 1000);
        this.requestVideoFrameCallback(shown);
      };
      this.requestVideoFrameCallback(shown);
    },
  });
}

/** Runs inside a page: the figures of the peer connection that tests look at. */
export async function figures(pc) {
  const reports = [...(await pc.getStats()).values()];
  const one = (type, kind) => reports.find((report) => report.type === type && (!kind || report.kind === kind));
  const codec = (rtp) => rtp && reports.find((report) => report.id === rtp.codecId)?.mimeType;
  const pick = (rtp, names) => rtp && Object.fromEntries(names.map((name) => [name, rtp[name]]));
  const transport = one('transport');
  // Of several layers the one of most frames: a browser begins with the lowest, and with higher ones only once it finds room for them.
  const outbound = (report) => report.type === 'outbound-rtp' && report.kind === 'video';
  const [outboundVideo] = reports.filter(outbound).sort((left, right) => right.framesSent - left.framesSent);
  return {
    at: performance.timeOrigin + performance.now(),
    sent: {
      video: pick(outboundVideo, ['framesSent', 'keyFramesEncoded', 'packetsSent', 'pliCount', 'nackCount', 'frameWidth']),
      audio: pick(one('outbound-rtp', 'audio'), ['packetsSent']),
      codec: codec(outboundVideo),
      // What the server's receiver reports say.
      reported: { video: pick(one('remote-inbound-rtp', 'video'), ['packetsLost']), audio: pick(one('remote-inbound-rtp', 'audio'), ['packetsLost']) },
    },
    received: {
      video: pick(one('inbound-rtp', 'video'), ['framesDecoded', 'keyFramesDecoded', 'framesDropped', 'packetsReceived', 'packetsLost', 'retransmittedPacketsReceived', 'freezeCount', 'totalFreezesDuration', 'pliCount', 'nackCount', 'frameWidth', 'jitterBufferDelay', 'jitterBufferEmittedCount', 'decoderImplementation', 'estimatedPlayoutTimestamp']),
      audio: pick(one('inbound-rtp', 'audio'), ['totalAudioEnergy', 'packetsReceived', 'packetsLost', 'packetsDiscarded', 'totalSamplesReceived', 'concealedSamples', 'jitterBufferDelay', 'jitterBufferEmittedCount', 'estimatedPlayoutTimestamp']),
      codec: codec(one('inbound-rtp', 'video')),
      // What the server's sender reports say.
      reported: { video: pick(one('remote-outbound-rtp', 'video'), ['packetsSent']), audio: pick(one('remote-outbound-rtp', 'audio'), ['packetsSent']) },
    },
    transport: pick(transport, ['dtlsState', 'iceState', 'srtpCipher', 'tlsVersion', 'selectedCandidatePairChanges']),
  };
}
