"""Synthetic video and audio that say who they are, and the reading of what arrived."""

import array
import fractions
import math

import av
from aiortc import AudioStreamTrack, VideoStreamTrack

WIDTH, HEIGHT = 320, 240
BITS = 16
CELL = WIDTH // BITS
WHITE, BLACK, GREY = 235, 16, 128

SAMPLE_RATE = 48_000
SAMPLES = SAMPLE_RATE // 50
TONE_HZ = 440
AMPLITUDE = 8_000


def draw(number):
    """A video frame whose upright bars spell `number` in binary, the highest bit first."""
    frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    bars = b"".join(bytes([WHITE if number >> bit & 1 else BLACK]) * CELL for bit in reversed(range(BITS)))
    for plane, row in zip(frame.planes, (bars, bytes([GREY]) * (WIDTH // 2), bytes([GREY]) * (WIDTH // 2))):
        plane.update(row.ljust(plane.line_size, b"\0") * plane.height)
    return frame


def read(frame):
    """The number that a received frame spells."""
    luma = frame.planes[0]
    row = bytes(luma)[luma.line_size * (HEIGHT // 2) :][:WIDTH]
    number = 0
    for cell in range(BITS):
        number = number << 1 | (row[cell * CELL + CELL // 2] > (WHITE + BLACK) // 2)
    return number


class CountingVideo(VideoStreamTrack):
    """Thirty numbered video frames a second."""

    number = 0

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        frame = draw(self.number)
        self.number = (self.number + 1) % (1 << BITS)
        frame.pts, frame.time_base = pts, time_base
        return frame


class Tone(AudioStreamTrack):
    """A sine tone; the base class keeps the pace."""

    samples = 0

    async def recv(self):
        silence = await super().recv()
        frame = av.AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        wave = (AMPLITUDE * math.sin(2 * math.pi * TONE_HZ * (self.samples + i) / SAMPLE_RATE) for i in range(SAMPLES))
        frame.planes[0].update(array.array("h", map(int, wave)).tobytes())
        assert silence.samples / silence.sample_rate == SAMPLES / SAMPLE_RATE, "aiortc changed its pace"
        frame.sample_rate, frame.pts = SAMPLE_RATE, self.samples
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self.samples += SAMPLES
        return frame


def pitch(frames):
    """The pitch in Hz of received audio, by its rising zero crossings; 0 where it is silent."""
    left = []
    for frame in frames:
        samples = array.array("h", bytes(frame.planes[0])[: frame.samples * 2 * len(frame.layout.channels)])
        left.extend(samples[:: len(frame.layout.channels)])
    if max(map(abs, left)) < AMPLITUDE // 4:
        return 0.0
    crossings = sum(1 for before, after in zip(left, left[1:]) if before < 0 <= after)
    return crossings * SAMPLE_RATE / len(left)
