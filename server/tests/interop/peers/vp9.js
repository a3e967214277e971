// FFmpeg 8 misreads the longer payload descriptors of VP9 that Chromium writes: this leaves the bits that tell where a frame
// begins and ends (RFC 9628, section 4.2).

const [HAS_PICTURE_ID, INTER_PICTURE, HAS_LAYERS, FLEXIBLE] = [0x80, 0x40, 0x20, 0x10];
const [BEGINS, ENDS, HAS_STRUCTURE] = [0x08, 0x04, 0x02];

/** How many bytes of scalability structure begin at `at`. */
function structure(payload, at) {
  const first = payload[at];
  let end = at + 1;
  if (first & 0x10) end += 4 * ((first >> 5) + 1);
  if (first & 0x08) {
    const pictures = payload[end];
    end += 1;
    for (let picture = 0; picture < pictures; picture += 1) end += 1 + ((payload[end] >> 2) & 3);
  }
  return end - at;
}

/** How many bytes the payload descriptor takes. */
function descriptor(payload) {
  const flags = payload[0];
  let at = 1;
  if (flags & HAS_PICTURE_ID) at += payload[at] & 0x80 ? 2 : 1;
  if (flags & HAS_LAYERS) at += flags & FLEXIBLE ? 1 : 2;
  if (flags & FLEXIBLE && flags & INTER_PICTURE) {
    do at += 1;
    while (payload[at - 1] & 1);
  }
  if (flags & HAS_STRUCTURE) at += structure(payload, at);
  return at;
}

/** The same packet without header extension and with the shortest payload descriptor. */
export function shorten(packet) {
  let start = 12 + 4 * (packet[0] & 0x0f);
  if (packet[0] & 0x10) start += 4 + 4 * packet.readUInt16BE(start + 2);
  const payload = packet.subarray(start);
  const header = Buffer.from(packet.subarray(0, 12));
  header[0] = 0x80;
  const flags = Buffer.from([payload[0] & (INTER_PICTURE | BEGINS | ENDS)]);
  return Buffer.concat([header, flags, payload.subarray(descriptor(payload))]);
}
