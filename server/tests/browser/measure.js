// What is computed from samples.

/** The middle one of some numbers. */
export function median(numbers) {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
}

/** The least of some numbers that this share of them does not exceed. */
export function percentile(numbers, share) {
  return numbers.toSorted((a, b) => a - b)[Math.ceil(share * numbers.length) - 1];
}

/** The longest time without a new frame from `from` to `until`, in milliseconds; both ends count as frames. */
export function longestGap(frames, from, until) {
  const shown = [from, ...frames.filter((at) => at >= from && at <= until), until];
  return Math.max(...shown.slice(1).map((at, index) => at - shown[index]));
}

/**
 * The longest time without a new frame in each of so many windows of equal length, in milliseconds. It belongs to the window
 * in which it ends.
 */
export function longestGaps(frames, from, until, windows) {
  const shown = [from, ...frames.filter((at) => at >= from && at <= until), until];
  const longest = new Array(windows).fill(0);
  for (const [index, at] of shown.slice(1).entries()) {
    const window = Math.min(windows - 1, Math.floor((windows * (at - from)) / (until - from)));
    longest[window] = Math.max(longest[window], at - shown[index]);
  }
  return longest;
}

/** How many packets of the video were never received; one that was received as RTX still counts as lost on the SSRC where it was missed. */
export function missing({ received: { video } }) {
  return video.packetsLost - (video.retransmittedPacketsReceived ?? 0);
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
