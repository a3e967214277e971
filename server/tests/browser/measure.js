// What is computed from samples.

/** The middle one of some numbers. */
export function median(numbers) {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
}

/** The longest time without a new frame from `from` to `until`, in milliseconds; both ends count as frames. */
export function longestGap(frames, from, until) {
  const shown = [from, ...frames.filter((at) => at >= from && at <= until), until];
  return Math.max(...shown.slice(1).map((at, index) => at - shown[index]));
}

/** How far the video is ahead of the audio, in milliseconds, as figures of one moment tell it. */
export function lipOffset({ received: { video, audio } }) {
  return video.estimatedPlayoutTimestamp - audio.estimatedPlayoutTimestamp;
}

/** How long a receiver's jitter buffer held the video and the audio that it gave out between two figures, in milliseconds. */
export function jitterBufferDelays(before, later) {
  const mean = (kind) => {
    const [from, to] = [before.received[kind], later.received[kind]];
    return (1000 * (to.jitterBufferDelay - from.jitterBufferDelay)) / (to.jitterBufferEmittedCount - from.jitterBufferEmittedCount);
  };
  return { video: mean('video'), audio: mean('audio') };
}
