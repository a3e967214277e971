#!/usr/bin/env python3
"""Records RTP of real encoders, and where real decoders can start in it.

For each stream NAME.rtp holds its packets, each behind its length in two bytes, and NAME.txt one line for each frame in the
order of sending:

    RTP time, packets, I/P/B and K for what FFmpeg calls a keyframe, and what FFmpeg's decoder shows that is given nothing from
    before this frame but the last parameter sets:
      clean     from this frame on every frame to the last bit as one that saw the whole stream
      recovers  the last frame is right, earlier ones are not
      broken    neither

Run it where the streams are to be recorded anew; with --check it decodes the recorded ones again and compares. Both need
ffmpeg and ffprobe with libx264, libx265, libvpx, libaom and SVT-AV1 (Debian: ffmpeg, see `.ci/install recordings`).
"""

import re
import socket
import struct
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Three seconds at 15 frames a second: small files with all that matters.
SOURCE = "testsrc2=size=160x112:rate=15:duration=3"
PACKET_SIZE = 600
CLOCK_RATE = 90_000

X264 = "-c:v libx264 -preset fast -crf 36 -threads 1 -x264-params scenecut=0:"
X265 = "-c:v libx265 -preset fast -crf 40 -threads 1 -x265-params log-level=error:pools=none:frame-threads=1:scenecut=0:"
VPX = "-g 15 -b:v 60k -lag-in-frames 12 -auto-alt-ref 1 -threads 1"
# Name, container for FFmpeg's decoder, arguments of the encoder.
STREAMS = {
    "x264": ("h264", X264 + "keyint=15:bframes=0:slices=2"),
    "x264-bframes": ("h264", X264 + "keyint=15:bframes=3:open-gop=0"),
    "x264-open-gop": ("h264", X264 + "keyint=15:min-keyint=15:bframes=3:open-gop=1"),
    "x264-intra-refresh": ("h264", X264 + "keyint=15:bframes=0:intra-refresh=1"),
    "x265-idr": ("hevc", X265 + "keyint=15:min-keyint=15:bframes=0:open-gop=0"),
    "x265-cra": ("hevc", X265 + "keyint=15:min-keyint=15:bframes=3:open-gop=1"),
    "x265-intra-refresh": ("hevc", X265 + "keyint=15:bframes=0:intra-refresh=1"),
    "vp8": ("vp8", "-c:v libvpx -deadline good -cpu-used 4 " + VPX),
    "vp9": ("vp9", "-c:v libvpx-vp9 -deadline good -cpu-used 4 " + VPX),
    "av1-libaom": ("av1", "-c:v libaom-av1 -cpu-used 8 -usage realtime -g 15 -b:v 60k -threads 1"),
    "av1-svt": ("av1", "-c:v libsvtav1 -preset 10 -g 15 -crf 50"),
}


def run(command, data=None):
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    return done.stdout, done.stderr


def ffmpeg(arguments, data=None):
    return run(["ffmpeg", "-nostdin" if data is None else "-y", "-v", "error", *arguments], data)


# --- Recording -----------------------------------------------------------------------------------------------------------


def record(encoder):
    """The packets of FFmpeg's own packetizer."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(1)
    url = f"rtp://127.0.0.1:{receiver.getsockname()[1]}?pkt_size={PACKET_SIZE}"
    output = ["-strict", "experimental", "-payload_type", "96", "-ssrc", "1", "-seq", "1000", "-f", "rtp", url]
    _, errors = ffmpeg(["-f", "lavfi", "-i", SOURCE, "-pix_fmt", "yuv420p", *encoder.split(), *output])
    packets = []
    while True:
        try:
            packets.append(receiver.recv(2000))
        except TimeoutError:
            break
    assert packets, errors.decode()
    # FFmpeg's RTP time begins anywhere; so that recordings can be compared it begins at 0 here.
    first = struct.unpack("!I", packets[0][4:8])[0]
    return [p[:4] + struct.pack("!I", (struct.unpack("!I", p[4:8])[0] - first) & 0xFFFFFFFF) + p[8:] for p in packets]


def record_av1(encoder, set_n):
    """FFmpeg 5.1 has no packetizer for AV1: temporal units cut into packets here (AV1-RTP §4)."""
    ivf, errors = ffmpeg(["-f", "lavfi", "-i", SOURCE, "-pix_fmt", "yuv420p", *encoder.split(), "-f", "ivf", "-"])
    assert ivf, errors.decode()
    packets = []
    for index, unit in enumerate(ivf_frames(ivf)):
        # Temporal delimiters (2) are not sent.
        obus = [obu for obu in split_obus(unit) if (obu[0] >> 3) & 15 != 2]
        pieces = []
        for obu in obus:
            begin = 0
            while begin < len(obu):
                end = min(begin + PACKET_SIZE - 20, len(obu))
                pieces.append((obu[begin:end], begin > 0, end < len(obu), (obu[0] >> 3) & 15 == 1))
                begin = end
        for place, (piece, continues, continued, is_sequence) in enumerate(pieces):
            # One element a packet, so that sequence headers stand alone as well.
            header = 0x10 | continues << 7 | continued << 6 | (is_sequence and set_n) << 3
            marker = 0x80 if place + 1 == len(pieces) else 0
            front = struct.pack("!BBHII", 0x80, marker | 96, 1000 + len(packets), index * CLOCK_RATE // 15, 1)
            packets.append(front + bytes([header]) + piece)
    return packets


def ivf_frames(data):
    position = struct.unpack("<H", data[6:8])[0]
    while position < len(data):
        size = struct.unpack("<I", data[position : position + 4])[0]
        yield data[position + 12 : position + 12 + size]
        position += 12 + size


def read_leb128(data, position):
    value = shift = 0
    while True:
        byte = data[position]
        value, shift, position = value | (byte & 0x7F) << shift, shift + 7, position + 1
        if byte < 0x80:
            return value, position


def leb128(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def split_obus(unit):
    """The OBUs of a temporal unit, without their sizes."""
    position = 0
    while position < len(unit):
        header = unit[position : position + (2 if unit[position] & 4 else 1)]
        size, begin = read_leb128(unit, position + len(header))
        yield bytes([header[0] & ~2]) + header[1:] + unit[begin : begin + size]
        position = begin + size


# --- What a decoder is given ---------------------------------------------------------------------------------------------


def frames_of(packets):
    """RTP time and payloads of each frame, in the order of sending."""
    frames = []
    for packet in packets:
        timestamp = struct.unpack("!I", packet[4:8])[0]
        if not frames or frames[-1][0] != timestamp:
            frames.append((timestamp, []))
        frames[-1][1].append(packet[12:])
    return frames


def aggregated(payload):
    while payload:
        size = struct.unpack("!H", payload[:2])[0]
        yield payload[2 : 2 + size]
        payload = payload[2 + size :]


def nal_units_h264(payloads):
    units = []
    for payload in payloads:
        kind = payload[0] & 31
        if kind == 24:
            units.extend(aggregated(payload[1:]))
        elif kind == 28:
            if payload[1] & 0x80:
                units.append(bytes([payload[0] & 0xE0 | payload[1] & 31]))
            units[-1] += payload[2:]
        else:
            units.append(payload)
    return units


def nal_units_h265(payloads):
    units = []
    for payload in payloads:
        kind = payload[0] >> 1 & 63
        if kind == 48:
            units.extend(aggregated(payload[2:]))
        elif kind == 49:
            if payload[2] & 0x80:
                units.append(bytes([payload[0] & 0x81 | (payload[2] & 63) << 1, payload[1]]))
            units[-1] += payload[3:]
        else:
            units.append(payload)
    return units


def vp8_frame(payloads):
    frame = b""
    for payload in payloads:
        length = 1
        if payload[0] & 0x80:
            present = payload[1]
            length = 2
            if present & 0x80:
                length += 2 if payload[length] & 0x80 else 1
            length += (present >> 6 & 1) + (1 if present & 0x30 else 0)
        frame += payload[length:]
    return frame


def vp9_frame(payloads):
    frame = b""
    for payload in payloads:
        assert payload[0] & 0x72 == 0 or payload[0] & 0x32 == 0, "a descriptor that FFmpeg does not write"
        length = 1
        if payload[0] & 0x80:
            length += 2 if payload[1] & 0x80 else 1
        frame += payload[length:]
    return frame


def av1_unit(payloads):
    obus = []
    for payload in payloads:
        if payload[0] & 0x80:
            obus[-1] += payload[1:]
        else:
            obus.append(payload[1:])
    sized = [bytes([obu[0] | 2]) + leb128(len(obu) - 1) + obu[1:] for obu in obus]
    return b"\x12\x00" + b"".join(sized)


SETS = {"h264": lambda unit: unit[0] & 31 in (7, 8), "hevc": lambda unit: unit[0] >> 1 & 63 in (32, 33, 34)}


class Stream:
    """A recorded stream as its frames, ready for a decoder."""

    def __init__(self, kind, packets):
        self.kind = kind
        self.frames = frames_of(packets)
        if kind in SETS:
            split = nal_units_h264 if kind == "h264" else nal_units_h265
            self.units = [split(payloads) for _, payloads in self.frames]
        else:
            join = {"vp8": vp8_frame, "vp9": vp9_frame, "av1": av1_unit}[kind]
            self.units = [[join(payloads)] for _, payloads in self.frames]

    def bytes_from(self, begin):
        """From this frame on, behind the parameter sets that were sent last before."""
        if self.kind in SETS:
            is_set = SETS[self.kind]
            sets = {}
            for unit in (unit for frame in self.units[:begin] for unit in frame if is_set(unit)):
                sets[unit[0]] = unit
            if any(is_set(unit) for unit in self.units[begin]):
                sets = {}
            units = [*sets.values(), *(unit for frame in self.units[begin:] for unit in frame)]
            return b"".join(b"\0\0\0\1" + unit for unit in units)
        fourcc = {"vp8": b"VP80", "vp9": b"VP90", "av1": b"AV01"}[self.kind]
        out = b"DKIF" + struct.pack("<HH4sHHIIII", 0, 32, fourcc, 160, 112, 15, 1, len(self.frames), 0)
        for index, (unit,) in enumerate(self.units[begin:]):
            out += struct.pack("<IQ", len(unit), index) + unit
        return out

    def rank(self, frame):
        """How many frames are shown before this one."""
        mine = self.frames[frame][0]
        return sum(1 for index, (timestamp, _) in enumerate(self.frames) if timestamp < mine and self.is_shown(index))

    def is_shown(self, frame):
        # VP8 sends alternative reference frames that are not shown as frames of their own.
        return self.kind != "vp8" or self.units[frame][0][0] & 0x10 != 0


# --- What the decoder makes of it ----------------------------------------------------------------------------------------


def decode(stream, begin):
    """The hashes of the frames that are shown, and whether the decoder complained."""
    container = stream.kind if stream.kind in SETS else "ivf"
    arguments = ["-threads", "1", "-f", container, "-i", "-", "-vsync", "passthrough", "-f", "framemd5", "-"]
    out, errors = ffmpeg(arguments, stream.bytes_from(begin))
    return re.findall(r"[0-9a-f]{32}", out.decode()), bool(errors)


def verdict(stream, begin, whole):
    shown, complained = decode(stream, begin)
    # Those that lead it and refer to what came before are left out (RASL).
    if not complained and shown and shown == whole[stream.rank(begin) :]:
        return "clean"
    return "recovers" if shown and shown[-1] == whole[-1] else "broken"


def probe(stream):
    """What FFmpeg calls the frames, in the order of sending."""
    container = stream.kind if stream.kind in SETS else "ivf"
    command = ["ffprobe", "-v", "error", "-f", container, "-show_entries", "frame=key_frame,pict_type,pkt_pos"]
    out, _ = run([*command, "-of", "compact=p=0", "-"], stream.bytes_from(0))
    known = {}
    for line in out.decode().splitlines():
        fields = dict(field.split("=") for field in line.split("|") if "=" in field)
        if fields.keys() >= {"pkt_pos", "pict_type", "key_frame"}:
            known[int(fields["pkt_pos"])] = fields["pict_type"] + ("K" if fields["key_frame"] == "1" else "")
    # Frames lie where they begin; those that are not shown are not in the list.
    position = 0 if stream.kind in SETS else 32
    names = []
    for units in stream.units:
        # FFmpeg takes the first zero of an H.265 frame for the last byte of the one before.
        names.append(known.get(position) or known.get(position + 1, "-"))
        position += sum(4 + len(unit) for unit in units) if stream.kind in SETS else 12 + len(units[0])
    return names


def judge(kind, packets):
    stream = Stream(kind, packets)
    whole, complained = decode(stream, 0)
    assert not complained and len(whole) == sum(map(stream.is_shown, range(len(stream.frames))))
    lines = []
    for index, ((timestamp, payloads), name) in enumerate(zip(stream.frames, probe(stream))):
        lines.append(f"{timestamp} {len(payloads)} {name} {verdict(stream, index, whole)}")
    return "\n".join(lines) + "\n"


def main():
    check = sys.argv[1:] == ["--check"]
    failed = False
    for name, (kind, encoder) in STREAMS.items():
        recording, account = HERE / f"{name}.rtp", HERE / f"{name}.txt"
        if check:
            data, packets = recording.read_bytes(), []
            while data:
                size = struct.unpack("!H", data[:2])[0]
                packets.append(data[2 : 2 + size])
                data = data[2 + size :]
        elif kind == "av1":
            packets = record_av1(encoder, set_n=name == "av1-libaom")
        else:
            packets = record(encoder)
        judged = judge(kind, packets)
        if not check:
            recording.write_bytes(b"".join(struct.pack("!H", len(packet)) + packet for packet in packets))
            account.write_text(judged)
        elif judged != account.read_text():
            failed = True
            print(f"{name}: FFmpeg's decoder judges otherwise now:\n{judged}", file=sys.stderr)
        print(f"{name}: {len(packets)} packets, {judged.count('clean')} of {judged.count(chr(10))} frames are clean starts")
    sys.exit(failed)


if __name__ == "__main__":
    main()
