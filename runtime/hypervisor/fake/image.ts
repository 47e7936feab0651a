import { FRAME_SIZE } from '../frame.ts';

/** Sparse memory: a frame costs nothing until it is written. */
export class FrameImage {
  readonly #frames = new Map<number, Uint8Array>();

  /** Frames that have been written, ascending. */
  frames(): number[] {
    return [...this.#frames.keys()].sort((a, b) => a - b);
  }

  /** Puts bytes at a physical address, over as many frames as they take. */
  store(address: number, bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.length) {
      const frame = Math.floor((address + done) / FRAME_SIZE);
      const offset = (address + done) % FRAME_SIZE;
      const part = bytes.subarray(done, done + FRAME_SIZE - offset);
      this.#frame(frame).set(part, offset);
      done += part.length;
    }
  }

  /** Copies `length` bytes of one frame to `into[position..]`. */
  copy(frame: number, offset: number, length: number, into: Uint8Array, position: number): void {
    const content = this.#frames.get(frame);
    if (content === undefined) into.fill(0, position, position + length);
    else into.set(content.subarray(offset, offset + length), position);
  }

  /** Bytes at a physical address. */
  load(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const offset = (address + done) % FRAME_SIZE;
      const part = Math.min(length - done, FRAME_SIZE - offset);
      this.copy(Math.floor((address + done) / FRAME_SIZE), offset, part, bytes, done);
      done += part;
    }
    return bytes;
  }

  clone(): FrameImage {
    const copy = new FrameImage();
    for (const [frame, content] of this.#frames) copy.#frames.set(frame, content.slice());
    return copy;
  }

  /** Physical addresses of the first bytes that differ, at most `limit`. Empty: the images are equal. */
  differences(other: FrameImage, limit = 16): number[] {
    const found: number[] = [];
    const frames = new Set([...this.#frames.keys(), ...other.#frames.keys()]);
    for (const frame of [...frames].sort((a, b) => a - b)) {
      const mine = this.load(frame * FRAME_SIZE, FRAME_SIZE);
      const theirs = other.load(frame * FRAME_SIZE, FRAME_SIZE);
      for (let offset = 0; offset < FRAME_SIZE && found.length < limit; offset++) {
        if (mine[offset] !== theirs[offset]) found.push(frame * FRAME_SIZE + offset);
      }
    }
    return found;
  }

  #frame(frame: number): Uint8Array {
    let content = this.#frames.get(frame);
    if (content === undefined) {
      content = new Uint8Array(FRAME_SIZE);
      this.#frames.set(frame, content);
    }
    return content;
  }
}
