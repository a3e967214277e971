"""Publishes video and audio with RTP clocks that drift or step, until it is ended: `wrong_clock.py WHIP_URL --drift 0.03`.

Sequence numbers and SSRCs go on, and its sender reports name the same RTP time as its packets.
"""

import argparse
import array
import asyncio
import fractions
import math
import time

import av
from aiortc import MediaStreamTrack
from aiortc.codecs.opus import OpusEncoder

from client import Client
from media import AMPLITUDE, SAMPLE_RATE, SAMPLES, TONE_HZ, CountingVideo, draw

# Nothing goes wrong before a viewer has joined and settled.
CALM = 10


class Clock:
    """RTP time that drifts by a share, and after the calm steps by so many seconds every so many."""

    def __init__(self, drift, step, every):
        self.begun = time.monotonic()
        self.drift, self.step, self.every = drift, step, every

    def read(self, seconds):
        """RTP time, in seconds, when so much media has passed."""
        steps = max(0, math.floor((seconds - CALM) / self.every) + 1)
        # Timestamps start high: steps back stay above zero.
        return 10_000 + seconds * (1 + self.drift) + steps * self.step

    async def wait(self, seconds):
        await asyncio.sleep(max(0, self.begun + seconds - time.monotonic()))


class Video(CountingVideo):
    """Thirty numbered video frames a second."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    async def recv(self):
        passed = self.number / 30
        await self.clock.wait(passed)
        frame = draw(self.number)
        self.number += 1
        frame.pts, frame.time_base = round(self.clock.read(passed) * 90_000), fractions.Fraction(1, 90_000)
        return frame


def tone():
    """Packets of a second of a sine tone, which may be repeated."""
    encoder, packets = OpusEncoder(), []
    for number in range(SAMPLE_RATE // SAMPLES + 1):
        frame = av.AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        first = number * SAMPLES
        wave = (AMPLITUDE * math.sin(2 * math.pi * TONE_HZ * (first + i) / SAMPLE_RATE) for i in range(SAMPLES))
        frame.planes[0].update(array.array("h", map(int, wave)).tobytes())
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, first, fractions.Fraction(1, SAMPLE_RATE)
        packets += encoder.encode(frame)[0]
    return packets


class Audio(MediaStreamTrack):
    """A sine tone, 50 packets a second, encoded beforehand: an encoder would not take such times."""

    kind = "audio"
    number = 0

    def __init__(self, clock):
        super().__init__()
        self.clock, self.packets = clock, tone()

    async def recv(self):
        passed = self.number * SAMPLES / SAMPLE_RATE
        await self.clock.wait(passed)
        packet = av.Packet(self.packets[self.number % len(self.packets)])
        packet.pts, packet.time_base = round(self.clock.read(passed) * SAMPLE_RATE), fractions.Fraction(1, SAMPLE_RATE)
        self.number += 1
        return packet


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("whip")
    parser.add_argument("--drift", type=float, default=0.0, help="RTP time runs so much faster than real time, 0.03 for 3 %%")
    parser.add_argument("--step", type=float, default=0.0, help="RTP time steps by so many seconds")
    parser.add_argument("--every", type=float, default=10.0, help="seconds from one step to the next")
    options = parser.parse_args()
    clock = Clock(options.drift, options.step, options.every)
    async with Client() as publisher:
        publisher.send(Video(clock), Audio(clock), codec="VP8")
        await publisher.join(options.whip)
        print("publishing", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
