"""The WHIP muxer of the libav that PyAV ships (its DTLS is GnuTLS's or OpenSSL's, as PyAV was built)."""

import fractions
import json
import math
import array
import sys
import threading
import time

import av

FRAMES = 15
WIDTH, HEIGHT = 320, 240
RATE = 48_000
SAMPLES = RATE // 50
counts = {"frames": 0, "audio": 0}


def picture(number):
    frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    for plane, level in zip(frame.planes, (16 + number * 5 % 200, 128, 128)):
        plane.update(bytes([level]) * plane.buffer_size)
    frame.pts, frame.time_base = number, fractions.Fraction(1, FRAMES)
    return frame


def tone(number):
    frame = av.AudioFrame(format="s16", layout="stereo", samples=SAMPLES)
    wave = (int(8000 * math.sin(2 * math.pi * 440 * (number * SAMPLES + i) / RATE)) for i in range(SAMPLES))
    frame.planes[0].update(array.array("h", [sample for each in wave for sample in (each, each)]).tobytes())
    frame.sample_rate, frame.pts, frame.time_base = RATE, number * SAMPLES, fractions.Fraction(1, RATE)
    return frame


def publish(options, over):
    with av.open(options["url"], "w", format="whip") as output:
        video = output.add_stream("libx264", rate=FRAMES)
        video.width, video.height, video.pix_fmt, video.gop_size = WIDTH, HEIGHT, "yuv420p", FRAMES
        video.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
        audio = output.add_stream("libopus", rate=RATE, layout="stereo")
        began = time.monotonic()
        while not over.is_set():
            passed = time.monotonic() - began
            while counts["audio"] < passed * RATE / SAMPLES:
                output.mux(audio.encode(tone(counts["audio"])))
                counts["audio"] += 1
            while counts["frames"] < passed * FRAMES:
                output.mux(video.encode(picture(counts["frames"])))
                counts["frames"] += 1
            over.wait(0.005)


def serve(over):
    for line in sys.stdin:
        if line == "figures\n":
            print(json.dumps(counts), flush=True)
    over.set()


def main():
    over = threading.Event()
    threading.Thread(target=serve, args=(over,), daemon=True).start()
    publish(json.loads(sys.argv[1]), over)


main()
