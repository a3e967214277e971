// Counts what is missing among the RTP packets of one stream (RFC 3550, appendix A.3).

export class Reception {
  #first;
  #highest;
  #received = 0;

  /** Takes note of a packet's sequence number, 16 bits wide. */
  note(packet) {
    const number = packet.readUInt16BE(2);
    if (this.#first === undefined) this.#first = this.#highest = number;
    const ahead = ((number - this.#highest + 0x18000) & 0xffff) - 0x8000;
    if (ahead > 0) this.#highest += ahead;
    this.#received += 1;
  }

  get received() {
    return this.#received;
  }

  /** Packets that were expected and have not come. */
  get lost() {
    return this.#first === undefined ? 0 : Math.max(0, this.#highest - this.#first + 1 - this.#received);
  }
}
