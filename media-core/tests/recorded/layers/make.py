#!/usr/bin/env python3
"""Records scalable streams and simulcast of Chromium, and judges what viewers at each of their layers are sent.

For each stream NAME.rtp holds its packets, each behind its length in two bytes, and NAME.txt one line for what
`rtp/layers/tests/recorded.rs` makes of it for one viewer:

    viewer, packets, frames, SHA-256 of the packets, and what this script and FFmpeg's decoders say of them:
      clean   numbers go on, markers end the frames, everything that a frame refers to was sent, and the decoder shows every
              frame without complaint; below the highest temporal layer the same frames, to the last bit
      broken  anything else, with the reason

Without arguments it judges the recorded streams, by the packets that the test writes to the folder in SLUICE_WRITE_LAYERS; with
--check it compares; with --record it records them anew before. SLUICE_LAYERS_WRITTEN names a folder to which the test wrote
them already. It needs ffmpeg with libvpx and dav1d, cargo, and to record
Chromium (see `.ci/install recordings browser`).
"""

import hashlib
import os
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

HERE = Path(__file__).resolve().parent
CHROMIUM = os.environ.get("CHROMIUM", "/usr/lib/chromium/chromium")
SMALL, MIDDLE, LARGE = (320, 180, 90_000), (640, 360, 260_000), (960, 540, 600_000)
# libwebrtc leaves upper spatial layers of VP9 out at lower rates.
VP9_MIDDLE, VP9_LARGE = (640, 360, 420_000), (960, 540, 800_000)
# Name: codec, mode, size and rate, and what else the page is asked for.
STREAMS = {
    "vp8-L1T3": ("VP8", "L1T3", SMALL, {}),
    "vp8-L1T3-described": ("VP8", "L1T3", SMALL, {"descriptor": 1}),
    "vp8-simulcast": ("VP8", "L1T2", MIDDLE, {"rids": 1}),
    "h264-L1T3": ("H264", "L1T3", SMALL, {"descriptor": 1}),
    "vp9-L1T2": ("VP9", "L1T2", SMALL, {}),
    "vp9-L1T3": ("VP9", "L1T3", SMALL, {"descriptor": 1}),
    "vp9-L2T1": ("VP9", "L2T1", VP9_MIDDLE, {}),
    "vp9-L3T3": ("VP9", "L3T3", VP9_LARGE, {"descriptor": 1}),
    "vp9-L3T3_KEY": ("VP9", "L3T3_KEY", VP9_LARGE, {}),
    "vp9-L3T3_KEY-described": ("VP9", "L3T3_KEY", VP9_LARGE, {"descriptor": 1}),
    "vp9-S2T1": ("VP9", "S2T1", VP9_MIDDLE, {}),
    "av1-L1T2": ("AV1", "L1T2", SMALL, {"descriptor": 1}),
    "av1-L1T3": ("AV1", "L1T3", SMALL, {"descriptor": 1}),
    "av1-L2T1": ("AV1", "L2T1", MIDDLE, {"descriptor": 1}),
    "av1-L3T3": ("AV1", "L3T3", LARGE, {"descriptor": 1}),
    "av1-L3T3_KEY": ("AV1", "L3T3_KEY", LARGE, {"descriptor": 1}),
    "av1-S2T1": ("AV1", "S2T1", MIDDLE, {"descriptor": 1}),
    "av1-simulcast": ("AV1", "L1T2", MIDDLE, {"rids": 1, "descriptor": 1}),
}
RID, DESCRIPTOR = "rtp-stream-id", "dependency-descriptor"
# Bytes of a recording, about.
LONGEST = 96_000
# Ids of the extensions in the recordings.
RID_ID, DESCRIPTOR_ID = 10, 13


# --- Recording -----------------------------------------------------------------------------------------------------------


def record(codec, mode, size, more):
    """The packets that libwebrtc writes to its log before it encrypts them."""
    width, height, rate = size
    query = urlencode({"codec": codec, "mode": mode, "width": width, "height": height, "rate": rate, **more})
    trials = "WebRTC-Debugging-RtpDump/Enabled/WebRTC-LegacySimulcastLayerLimit/Disabled/"
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        flags += ["--enable-logging=stderr", "--v=0", "--vmodule=*/webrtc/*=3", f"--force-fieldtrials={trials}"]
        flags += ["--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--allow-file-access-from-files"]
        page = f"{(HERE / 'page.html').as_uri()}?{query}"
        browser = subprocess.Popen([CHROMIUM, *flags, page], stderr=subprocess.PIPE, text=True, errors="replace")
        lines = []
        for line in browser.stderr:
            lines.append(line)
            if "LAYERS done" in line:
                break
        browser.kill()
        browser.wait()
    for line in lines:
        if "LAYERS" in line and "extmap" not in line:
            print("   ", line[line.index("LAYERS") : line.rindex('"')])
    names = dict(re.findall(r"a=extmap:(\d+) \S*?(rtp-stream-id|dependency-descriptor)", "".join(lines)))
    kept = {int(number): {RID: RID_ID, DESCRIPTOR: DESCRIPTOR_ID}[name] for number, name in names.items()
            if f"extmap:{number} urn:ietf:params:rtp-hdrext:sdes:repaired" not in "".join(lines)}
    dumped = (re.search(r"(?:^|\s)O [\d:.]+ 0000 ((?:[0-9a-f]{2} )+)", line) for line in lines if "RTP_DUMP" in line)
    packets = [Packet(bytes.fromhex(found[1])) for found in dumped if found]
    # Neither RTCP nor padding nor retransmissions.
    media = [packet for packet in packets if not packet.is_rtcp and packet.payload]
    # Whole pictures, as far as they make a small file.
    while sum(len(packet.payload) + 40 for packet in media) > LONGEST:
        last = media[-1].timestamp
        media = [packet for packet in media if packet.timestamp != last]
    main = max({packet.payload_type for packet in media}, key=[packet.payload_type for packet in media].count)
    return [rewritten(packet, kept) for packet in media if packet.payload_type == main]


class Packet:
    """A packet of RTP."""

    def __init__(self, data):
        self.is_rtcp = 192 <= data[1] <= 223
        self.marker, self.payload_type = data[1] >> 7, data[1] & 127
        self.sequence, self.timestamp, self.ssrc = struct.unpack("!HII", data[2:12])
        begin = 12 + 4 * (data[0] & 15)
        self.extensions = {}
        if data[0] & 0x10 and not self.is_rtcp:
            profile, words = struct.unpack("!HH", data[begin : begin + 4])
            self.extensions = dict(elements(profile, data[begin + 4 : begin + 4 + 4 * words]))
            begin += 4 + 4 * words
        self.payload = data[begin : len(data) - (data[-1] if data[0] & 0x20 else 0)]


def elements(profile, body):
    while body:
        if body[0] == 0:
            body = body[1:]
            continue
        head, number, length = (1, body[0] >> 4, (body[0] & 15) + 1) if profile == 0xBEDE else (2, body[0], body[1])
        yield number, body[head : head + length]
        body = body[head + length :]


def rewritten(packet, kept):
    """With nothing but what layers are read from: recordings stay small."""
    body = b""
    for number, data in packet.extensions.items():
        if number in kept:
            body += bytes([kept[number], len(data)]) + data
    body += bytes(-len(body) % 4)
    front = struct.pack("!BBHII", 0x90, packet.marker << 7 | 96, packet.sequence, packet.timestamp, packet.ssrc)
    return front + struct.pack("!HH", 0x1000, len(body) // 4) + body + packet.payload


def split(data):
    while data:
        size = struct.unpack("!H", data[:2])[0]
        yield data[2 : 2 + size]
        data = data[2 + size :]


# --- An independent depacketiser ------------------------------------------------------------------------------------------


class Broken(Exception):
    """What is sent to a viewer is not right."""


def check(condition, reason):
    if not condition:
        raise Broken(reason)


def pictures(packets):
    """The packets of each picture, by timestamp; numbers go on, and markers end pictures."""
    out = []
    for before, packet in zip([None, *packets], packets):
        check(before is None or packet.sequence == (before.sequence + 1) % 65536, "a gap in the sequence numbers")
        if before is None or before.timestamp != packet.timestamp:
            check(before is None or before.marker, "a picture without marker")
            check(before is None or 0 < (packet.timestamp - before.timestamp) % 2**32 < 2**31, "time goes back")
            out.append([])
        else:
            check(not before.marker, "a marker inside a picture")
        out[-1].append(packet)
    return out


def vp8_frame(packets, state):
    frame = b""
    ids = set()
    for index, packet in enumerate(packets):
        payload, at = packet.payload, 1
        fields = {}
        if payload[0] & 0x80:
            present, at = payload[1], 2
            if present & 0x80:
                wide = payload[at] & 0x80
                fields["id"] = struct.unpack("!H", payload[at : at + 2])[0] & 0x7FFF if wide else payload[at]
                at += 2 if wide else 1
            if present & 0x40:
                fields["tl0"] = payload[at]
                at += 1
            if present & 0x30:
                fields["tid"], fields["key"] = payload[at] >> 6, payload[at] & 31
                at += 1
        check((payload[0] & 0x17 == 0x10) == (index == 0), "partitions out of order")
        ids.add(tuple(sorted(fields.items())))
        frame += payload[at:]
    check(len(ids) == 1, "packets of one frame with different numbers")
    if fields.get("id") is not None:
        before = state.get("vp8")
        if before:
            check(fields["id"] == (before["id"] + 1) % 0x8000, "picture ids do not go on")
            step = (fields["tl0"] - before["tl0"]) % 256
            check(step == (1 if fields["tid"] == 0 else 0), "TL0PICIDX does not go on")
        state["vp8"] = fields
    return frame


def vp9_frames(packets, state):
    """The frames of the layers of a picture; what they refer to was sent before."""
    layers, known = [], state.setdefault("vp9", {})
    for packet in packets:
        payload, at = packet.payload, 1
        flags = payload[0]
        wide = payload[at] & 0x80
        identity = struct.unpack("!H", payload[at : at + 2])[0] & 0x7FFF if wide else payload[at]
        at += 2 if wide else 1
        spatial = 0
        if flags & 0x20:
            spatial = payload[at] >> 1 & 7
            below = payload[at] & 1
            at += 1 if flags & 0x10 else 2
            if below and flags & 0x08:
                check((identity, spatial - 1) in known, "a spatial layer without the one below")
        if flags & 0x50 == 0x50:
            while True:
                reference = (identity - (payload[at] >> 1)) % 0x8000
                at += 1
                if flags & 0x08:
                    check((reference, spatial) in known, "a reference that was not sent")
                if not payload[at - 1] & 1:
                    break
        if flags & 0x02:
            structure, at = payload[at], at + 1
            at += 4 * ((structure >> 5) + 1) if structure & 0x10 else 0
            if structure & 0x08:
                groups, at = payload[at], at + 1
                for _ in range(groups):
                    at += 1 + (payload[at] >> 2 & 3)
        if flags & 0x08:
            if spatial == min(s for s in [*(s for s, _ in layers), spatial]) and not layers and known:
                newest = state["vp9-newest"]
                check(0 < (identity - newest) % 0x8000 < 0x4000, "picture ids go back")
            layers.append((spatial, b""))
            known[identity, spatial] = True
            state["vp9-newest"] = identity
        check(layers and layers[-1][0] == spatial, "a frame without its first packet")
        layers[-1] = (spatial, layers[-1][1] + payload[at:])
    frames = [frame for _, frame in layers]
    if len(frames) == 1:
        return frames[0]
    # A superframe (VP9 specification, annex B).
    mark = bytes([0xC0 | 3 << 3 | len(frames) - 1])
    return b"".join(frames) + mark + b"".join(struct.pack("<I", len(frame)) for frame in frames) + mark


def leb128(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def read_leb128(data, at):
    value = shift = 0
    while True:
        value, shift, at = value | (data[at] & 0x7F) << shift, shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def av1_unit(packets):
    obus, goes_on = [], False
    for packet in packets:
        header, at, index = packet.payload[0], 1, 0
        check(bool(header & 0x80) == goes_on, "an OBU without its begin")
        count = header >> 4 & 3
        while at < len(packet.payload):
            index += 1
            size = len(packet.payload) - at
            if count == 0 or index < count:
                size, at = read_leb128(packet.payload, at)
            element, at = packet.payload[at : at + size], at + size
            if index == 1 and header & 0x80:
                obus[-1] += element
            else:
                obus.append(element)
        goes_on = bool(header & 0x40)
    check(not goes_on, "an OBU without its end")
    out = b"\x12\x00"
    for obu in obus:
        head = 2 if obu[0] & 4 else 1
        out += bytes([obu[0] | 2]) + obu[1:head] + leb128(len(obu) - head) + obu[head:]
    return out


def h264_frame(packets):
    units = []
    for packet in packets:
        payload = packet.payload
        kind = payload[0] & 31
        if kind == 24:
            at = 1
            while at < len(payload):
                size = struct.unpack("!H", payload[at : at + 2])[0]
                units.append(payload[at + 2 : at + 2 + size])
                at += 2 + size
        elif kind == 28:
            if payload[1] & 0x80:
                units.append(bytes([payload[0] & 0xE0 | payload[1] & 31]))
            units[-1] += payload[2:]
        else:
            units.append(payload)
    return b"".join(b"\0\0\0\1" + unit for unit in units)


class Bits:
    """Reads a dependency descriptor."""

    def __init__(self, data):
        self.bits, self.at = "".join(f"{byte:08b}" for byte in data), 0

    def take(self, count):
        check(self.at + count <= len(self.bits), "a dependency descriptor that is cut")
        self.at += count
        return int(self.bits[self.at - count : self.at] or "0", 2)

    def below(self, count):
        width = count.bit_length()
        short = (1 << width) - count
        value = self.take(width - 1)
        return value if value < short else (value << 1) - short + self.take(1)


def described_frames(packets, state):
    """The frames of the descriptors of a picture: what they refer to was sent before (AV1 RTP specification, A.4)."""
    known = state.setdefault("frames", set())
    for packet in packets:
        data = packet.extensions.get(DESCRIPTOR_ID)
        if data is None:
            return
        bits = Bits(data)
        start, _, template, number = bits.take(1), bits.take(1), bits.take(6), bits.take(16)
        flags = bits.take(5) if len(data) > 3 else 0
        if flags & 16:
            state["structure"] = structure(bits)
            state["active"] = (1 << state["structure"]["targets"]) - 1
        current = state["structure"]
        if flags & 8:
            state["active"] = bits.take(current["targets"])
        index = (template - current["offset"]) % 64
        check(index < len(current["differences"]), "a template that the structure has not")
        if flags & 4:
            bits.take(2 * current["targets"])
        differences = current["differences"][index]
        if flags & 2:
            differences = []
            while size := bits.take(2):
                differences.append(bits.take(4 * size) + 1)
        if flags & 1:
            bits.take(8 * current["chains"])
        if start:
            newest = state.get("newest")
            check(newest is None or 0 < (number - newest) % 65536 < 32768, "frame numbers go back")
            missing = [difference for difference in differences if (number - difference) % 65536 not in known]
            check(not missing, "a frame refers to one that was not sent")
            known.add(number)
            state["newest"] = number
        else:
            check(number == state["newest"], "packets of one frame with different numbers")


def structure(bits):
    offset, targets = bits.take(6), bits.take(5) + 1
    count = spatial = 1
    while (following := bits.take(2)) != 3:
        count, spatial = count + 1, spatial + (following == 2)
    bits.take(2 * targets * count)
    differences = []
    for _ in range(count):
        differences.append([])
        while bits.take(1):
            differences[-1].append(bits.take(4) + 1)
    chains = bits.below(targets + 1)
    if chains:
        for _ in range(targets):
            bits.below(chains)
        bits.take(4 * count * chains)
    if bits.take(1):
        bits.take(32 * spatial)
    return {"offset": offset, "targets": targets, "differences": differences, "chains": chains}


# --- What the decoder makes of it -----------------------------------------------------------------------------------------

DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9", "av1": "libdav1d", "h264": "h264"}


def decode(codec, units):
    """The hash of each frame that is shown."""
    if codec == "h264":
        container, data = "h264", b"".join(units)
    else:
        fourcc = {"vp8": b"VP80", "vp9": b"VP90", "av1": b"AV01"}[codec]
        container, data = "ivf", b"DKIF" + struct.pack("<HH4sHHIIII", 0, 32, fourcc, 960, 540, 10, 1, len(units), 0)
        for index, unit in enumerate(units):
            data += struct.pack("<IQ", len(unit), index) + unit
    command = ["ffmpeg", "-y", "-v", "error", "-threads", "1", "-c:v", DECODERS[codec], "-f", container, "-i", "-"]
    command += ["-vf", "scale=960:540:flags=neighbor", "-vsync", "passthrough", "-f", "framemd5", "-"]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    complaint = done.stderr.decode(errors="replace").strip().splitlines()
    check(not complaint, f"FFmpeg: {complaint[0] if complaint else ''}")
    return re.findall(r"[0-9a-f]{32}", done.stdout.decode())


def judge(codec, packets):
    """The hash of each picture by its time."""
    state, units, times = {}, [], []
    for picture in pictures(packets):
        described_frames(picture, state)
        join = {"vp8": vp8_frame, "vp9": vp9_frames}.get(codec)
        units.append(join(picture, state) if join else {"av1": av1_unit, "h264": h264_frame}[codec](picture))
        times.append(picture[0].timestamp)
    shown = decode(codec, units)
    check(len(shown) == len(units), f"{len(shown)} of {len(units)} pictures are shown")
    return dict(zip(times, shown))


def account(name, folder):
    codec = name.split("-", maxsplit=1)[0]
    lines, judged = [], {}
    for path in sorted(folder.glob(f"{name}.*.rtp")):
        viewer = path.name.split(".")[1]
        data = path.read_bytes()
        packets = [Packet(packet) for packet in split(data)]
        try:
            judged[viewer] = judge(codec, packets)
            verdict = "clean"
        except Broken as reason:
            verdict = f"broken {reason}"
        frames = len({packet.timestamp for packet in packets})
        lines.append([viewer, str(len(packets)), str(frames), hashlib.sha256(data).hexdigest(), verdict])
    # Temporal layers change nothing in the frames that are left.
    for line in lines:
        layer = re.fullmatch(r"(e\d)(s\d)t\d", line[0])
        if layer and line[4] == "clean":
            whole = judged[max(other for other in judged if other.startswith(layer[1] + layer[2]))]
            if any(whole.get(time) != shown for time, shown in judged[line[0]].items()):
                line[4] = "broken other frames than with all temporal layers"
    return "".join(" ".join(line) + "\n" for line in lines)


def main():
    arguments = sys.argv[1:]
    names = [name for name in STREAMS if name in arguments] or list(STREAMS)
    if "--record" in arguments:
        for name in names:
            packets = record(*STREAMS[name])
            data = b"".join(struct.pack("!H", len(packet)) + packet for packet in packets)
            (HERE / f"{name}.rtp").write_bytes(data)
            print(f"{name}: {len(packets)} packets, {len(data)} bytes")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        written = os.environ.get("SLUICE_LAYERS_WRITTEN")
        if not written:
            command = ["cargo", "test", "-q", "-p", "media-core", "--lib", "rtp::layers::tests::recorded"]
            # It compares with the last account, which may be another's.
            subprocess.run(command, cwd=HERE, env={**os.environ, "SLUICE_WRITE_LAYERS": folder}, check=False)
        for name in names:
            judged = account(name, Path(written or folder))
            if "--check" not in arguments:
                (HERE / f"{name}.txt").write_text(judged)
            elif judged != (HERE / f"{name}.txt").read_text():
                failed = True
                print(f"{name} is judged otherwise now:\n{judged}", file=sys.stderr)
            print(f"{name}: {judged.count(' clean')} of {judged.count(chr(10))} viewers get a clean stream")
            for line in judged.splitlines():
                if not line.endswith("clean"):
                    print("   ", line)
    sys.exit(failed)


if __name__ == "__main__":
    main()
