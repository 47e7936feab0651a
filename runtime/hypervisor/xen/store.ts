import type { StoreLibrary } from './libraries.ts';

/** Names are short (xl takes at most 63 bytes); longer values are not ours. */
const MAX_VALUE = 4096;

/** Reads single values of xenstore. */
export class XenStore {
  readonly #lib: StoreLibrary;
  #handle: bigint | null;

  private constructor(lib: StoreLibrary, handle: bigint) {
    this.#lib = lib;
    this.#handle = handle;
  }

  /** @returns undefined when xenstored does not run */
  static open(lib: StoreLibrary | undefined): XenStore | undefined {
    const handle = lib?.xs_open(0) as bigint | null | undefined;
    return lib === undefined || !handle ? undefined : new XenStore(lib, handle);
  }

  /** @returns undefined when there is no such node */
  read(path: string): string | undefined {
    if (this.#handle === null) return undefined;
    const length = new Uint32Array(new ArrayBuffer(1024));
    const value = this.#lib.xs_read(this.#handle, 0, path, length) as bigint | null;
    if (!value) return undefined;
    try {
      const bytes = new Uint8Array(new ArrayBuffer(MAX_VALUE));
      const size = Math.min(length[0]!, MAX_VALUE);
      this.#lib.memcpy(bytes, value, size);
      return Buffer.from(bytes.subarray(0, size)).toString('utf8');
    } finally {
      this.#lib.free(value);
    }
  }

  close(): void {
    if (this.#handle === null) return;
    this.#lib.xs_close(this.#handle);
    this.#handle = null;
  }
}
