import { readFileSync } from 'node:fs';
import { ROOT } from '../installation.ts';
import { type DwarfRecord, decodeRecord, RECORD_SIZE } from './record.ts';

/** `make wasm` puts the module here: beside the compiled program, both in the checkout and in the npm package. */
const MODULE = new URL('dist/wasm/libdwarf.wasm', ROOT);

/** Sections in the order of `enum section` in `shim/shim.h`. */
export const SECTIONS = [
  '.debug_info',
  '.debug_types',
  '.debug_abbrev',
  '.debug_str',
  '.debug_line_str',
  '.debug_str_offsets',
  '.debug_addr',
  'alternate .debug_str',
] as const;
export type SectionName = (typeof SECTIONS)[number];

/** What a scan records: definitions of wanted names, all definitions, or one per name. */
export const SCAN = { wanted: 0, every: 1, names: 2 } as const;

const PAGE = 65536;
/** Room for libdwarf's own structures and for records; untouched pages cost nothing. */
const SPARE = 48 << 20;
/** The linker's limit on the module's memory. */
const MAX_MEMORY = 1 << 30;

interface LibdwarfExports {
  memory: WebAssembly.Memory;
  allocate(size: number): number;
  release(address: number): void;
  set_section(index: number, address: number, size: number): void;
  set_split(split: number): void;
  split_name(): number;
  split_directory(): number;
  open_unit(which: number): number;
  close_unit(): void;
  root_extent(): number;
  count_crossings(): number;
  read_tree(offset: number): number;
  scan_types(what: number): number;
  want(name: number, length: number): number;
  forget_scans(): void;
  records(): number;
  error_message(): number;
  error_offset(): number;
}

/** libdwarf refused an entry. */
export class LibdwarfError extends Error {
  override readonly name = 'LibdwarfError';
  /** From the open unit's header. */
  readonly offset: number;

  constructor(offset: number, message: string) {
    super(message);
    this.offset = offset;
  }
}

let compiled: WebAssembly.Module | undefined;

/**
 * libdwarf in WebAssembly, with one unit open at a time. It can reach only its own memory, which is limited. A trap
 * becomes a `LibdwarfError`, after which the instance refuses everything.
 */
export class Libdwarf {
  readonly #exports: LibdwarfExports;
  #buffer: Buffer;
  #view: DataView;
  #broken = false;
  /** Strings of sections that stay in memory, by address. */
  readonly #strings = new Map<number, string>();
  #stringRanges: [start: number, end: number][] = [];

  /** @param heap bytes that will be put into the module's memory */
  constructor(heap: number) {
    compiled ??= new WebAssembly.Module(readFileSync(MODULE));
    // libdwarf contains code that prints, which is not supported here.
    const refuse = () => 8; // EBADF
    const instance = new WebAssembly.Instance(compiled, {
      wasi_snapshot_preview1: {
        fd_close: refuse,
        fd_fdstat_get: refuse,
        fd_seek: refuse,
        fd_write: refuse,
      },
    });
    this.#exports = instance.exports as unknown as LibdwarfExports;
    const { memory } = this.#exports;
    // Grow before the first allocation, so that the allocator takes it all as its heap: growing later is slow.
    const size = Math.min(heap + SPARE, MAX_MEMORY);
    const missing = Math.ceil((size - memory.buffer.byteLength) / PAGE);
    if (missing > 0) memory.grow(missing);
    this.#buffer = Buffer.from(memory.buffer);
    this.#view = new DataView(memory.buffer);
  }

  /** The module's memory; any call may replace it. */
  get memory(): Buffer {
    this.#refresh();
    return this.#buffer;
  }

  /** @returns the address @throws LibdwarfError if the module's memory is used up */
  allocate(size: number): number {
    const address = this.#call(() => this.#exports.allocate(size)) >>> 0;
    if (address === 0) throw new LibdwarfError(0, `libdwarf has no room for ${size} bytes`);
    return address;
  }

  release(address: number): void {
    this.#call(() => this.#exports.release(address));
  }

  /** Tells libdwarf where a section is. */
  setSection(name: SectionName, address: number, size: number): void {
    this.#call(() => this.#exports.set_section(SECTIONS.indexOf(name), address, size));
  }

  /** Declares that these bytes will not change from now on. */
  keep(address: number, size: number): void {
    this.#stringRanges.push([address, address + size]);
  }

  /** Sets whether the next units are from a `.dwo` file. */
  setSplit(split: boolean): void {
    this.#call(() => this.#exports.set_split(split ? 1 : 0));
  }

  /** The `.dwo` file behind the open unit, as the compiler wrote it; null for a complete unit. */
  splitFile(): { name: string; directory: string } | null {
    const at = this.#exports.split_name() >>> 0;
    if (at === 0) return null;
    return { name: this.#string(at), directory: this.#string(this.#exports.split_directory() >>> 0) };
  }

  /** The string at an address; '' at 0. */
  #string(at: number): string {
    if (at === 0) return '';
    this.#refresh();
    return this.#buffer.toString('utf8', at, this.#buffer.indexOf(0, at));
  }

  /** Opens the unit that `section` consists of. @returns its root entry @throws LibdwarfError */
  openUnit(section: '.debug_info' | '.debug_types'): DwarfRecord {
    return this.#records(() => this.#exports.open_unit(SECTIONS.indexOf(section)))[0]!;
  }

  /** Offset of the root entry's last attribute. */
  rootExtent(): number {
    return this.#exports.root_extent() >>> 0;
  }

  /** Whether any entry read so far refers to another unit. */
  get hasCrossings(): boolean {
    return this.#exports.count_crossings() !== 0;
  }

  /** The entry at `offset`, then its children. @throws LibdwarfError */
  readTree(offset: number): DwarfRecord[] {
    return this.#records(() => this.#exports.read_tree(offset));
  }

  /** Definitions at the open unit's top level that no earlier scan returned. @throws LibdwarfError */
  scan(what: (typeof SCAN)[keyof typeof SCAN]): DwarfRecord[] {
    return this.#records(() => this.#exports.scan_types(what));
  }

  /** Makes later scans return everything again. */
  forgetScans(): void {
    this.#call(() => this.#exports.forget_scans());
  }

  /** Adds a name that `SCAN.wanted` looks for. */
  want(name: string): void {
    const bytes = Buffer.from(name);
    const address = this.allocate(bytes.length + 1);
    this.memory.set(bytes, address);
    this.#call(() => this.#exports.want(address, bytes.length));
    this.release(address);
  }

  #records(call: () => number): DwarfRecord[] {
    const count = this.#call(call);
    this.#refresh();
    if (count < 0) {
      const message = this.#exports.error_message() >>> 0;
      const end = this.#buffer.indexOf(0, message);
      throw new LibdwarfError(
        this.#exports.error_offset() >>> 0,
        this.#buffer.toString('latin1', message, end),
      );
    }
    const start = this.#exports.records() >>> 0;
    const text = (address: number, length: number) => this.#text(address, length);
    return Array.from({ length: count }, (_, index) =>
      decodeRecord(this.#view, start + index * RECORD_SIZE, text),
    );
  }

  #text(address: number, length: number): string {
    const known = this.#strings.get(address);
    if (known !== undefined) return known;
    const string = this.#buffer.toString('utf8', address, address + length);
    if (this.#stringRanges.some(([start, end]) => address >= start && address < end)) {
      this.#strings.set(address, string);
    }
    return string;
  }

  /** A trap (unreachable code, memory out of bounds, stack overflow) leaves libdwarf in an undefined state. */
  #call<T>(call: () => T): T {
    if (this.#broken) throw new LibdwarfError(0, 'libdwarf stopped at an earlier error');
    try {
      return call();
    } catch (error) {
      this.#broken = true;
      throw new LibdwarfError(0, `libdwarf stopped: ${(error as Error).message}`);
    }
  }

  #refresh(): void {
    if (this.#buffer.buffer === this.#exports.memory.buffer) return;
    this.#buffer = Buffer.from(this.#exports.memory.buffer);
    this.#view = new DataView(this.#exports.memory.buffer);
  }
}
