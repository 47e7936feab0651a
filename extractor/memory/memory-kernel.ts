import { createHash } from 'node:crypto';
import type { KernelMemory, MemoryEvidence, MemoryPart } from '../contract.ts';
import { bannerAt, releaseOf } from '../elf/banner.ts';
import { asBuffer } from '../elf/byte-source.ts';
import { findEmbeddedConfig } from '../elf/kernel-config.ts';
import type { KernelFile, KernelSymbol, SectionData } from '../elf/kernel-file.ts';
import { readBuildId } from '../elf/notes.ts';
import { lookupSymbols } from '../elf/symbol-source.ts';
import { KERNEL_IMAGE } from '../elf/symbol-text.ts';
import { ExtractError } from '../error.ts';
import { findKallsyms, type Kallsyms } from '../kallsyms/kallsyms.ts';
import { strayBuildId } from './stray-build-id.ts';

/**
 * `setup_header.pref_address` in `boot_params` (Documentation/arch/x86/boot.rst, protocol 2.10): the address for which
 * the kernel was linked. Xen's boot loader leaves it 0 and does not move the kernel.
 */
const PREF_ADDRESS = 0x258;
/** Kernels are moved by multiples of 2 MiB, within 1 GiB. */
const SLIDE_STEP = 0x20_0000n;
const MAX_SLIDE = 0x4000_0000n;
const MAX_BTF = 64 << 20;
const MAX_NOTES = 64 << 10;
const MAX_CONFIG = 1 << 20;
const MARK = 8;

/** The two tables in a kernel that a layout needs. */
export type MemoryTable = 'kallsyms' | 'btf';

/**
 * A running kernel in its own memory: symbols from its kallsyms, types from its BTF, the rest from where its symbols
 * point. Addresses are reported as linked, without the kernel's slide.
 */
export class MemoryKernel implements KernelFile {
  readonly path: string;
  readonly elfPath = null;
  readonly #parts: readonly MemoryPart[];
  readonly #kallsyms: Kallsyms;
  /** Address of the part that contains the tables. */
  readonly #tablesAt: bigint;
  /** Addresses as in memory. */
  readonly #running: ReadonlyMap<string, bigint>;
  /** Difference from link-time addresses. */
  readonly #slide: bigint;
  readonly #btf: SectionData;

  private constructor(name: string, parts: readonly MemoryPart[], { kallsyms, address }: FoundTables) {
    this.path = name;
    this.#parts = parts;
    this.#kallsyms = kallsyms;
    this.#tablesAt = address;
    const places = lookupSymbols(kallsyms, LANDMARKS);
    this.#running = new Map([...places].map(([symbol, { address }]) => [symbol, address]));
    this.#slide = this.#findSlide();
    const btf = this.#between('.BTF', '__start_BTF', '__stop_BTF', MAX_BTF);
    if (btf === null) throw missing(name, 'btf', this.buildId);
    this.#btf = btf;
  }

  /**
   * @param more reads memory outside the parts, which may contain only the kernel's constants
   * @throws ExtractError `no-debug-information`, with the `missing` table, if the kernel does not have both
   */
  static async open({ name, parts }: KernelMemory, more?: ReadMore): Promise<MemoryKernel> {
    const found = findTables(parts);
    if (found === null) throw missing(name, 'kallsyms', strayBuildId(parts));
    const parameters = lookupSymbols(found.kallsyms, LANDMARKS).get('boot_params');
    const word = parameters === undefined ? undefined : parameters.address + BigInt(PREF_ADDRESS);
    if (more === undefined || word === undefined || partAt(parts, word) !== undefined) {
      return new MemoryKernel(name, parts, found);
    }
    const bytes = await more(word, 8);
    const all = bytes === null ? parts : [...parts, { address: word, bytes }];
    return new MemoryKernel(name, all, found);
  }

  get buildId(): string | null {
    const notes = this.#between('.notes', '__start_notes', '__stop_notes', MAX_NOTES);
    return notes && readBuildId(notes);
  }

  get sectionNames(): readonly string[] {
    return [this.#btf.name];
  }

  section(name: string): SectionData | null {
    return name === this.#btf.name ? this.#btf : null;
  }

  banner(): string | null {
    const address = this.#running.get('linux_banner');
    const part = address === undefined ? undefined : partAt(this.#parts, address);
    return part ? bannerAt(sectionOf('.rodata', part), Number(address! - part.address)) : null;
  }

  release(): string | null {
    const banner = this.banner();
    return banner === null ? null : releaseOf(banner);
  }

  symbols(): Iterable<KernelSymbol> {
    return moved(this.#kallsyms.all(), this.#slide);
  }

  lookup(names: Iterable<string>): Map<string, KernelSymbol> {
    const found = lookupSymbols(this.#kallsyms, names);
    return new Map([...moved(found.values(), this.#slide)].map((symbol) => [symbol.name, symbol]));
  }

  config(): Record<string, string> | null {
    const place = this.#configPlace();
    const bytes = place && this.#read(place.address, place.length);
    return bytes && findEmbeddedConfig(sectionOf('.rodata', { address: place.address, bytes }));
  }

  /** Includes the marks around it (kernel/configs.c), which are no symbols. */
  #configPlace(): { address: bigint; length: number } | null {
    const start = this.#running.get('kernel_config_data');
    const end = this.#running.get('kernel_config_data_end');
    if (start === undefined || end === undefined || end < start || end - start > MAX_CONFIG) return null;
    return { address: start - BigInt(MARK), length: Number(end - start) + 2 * MARK };
  }

  /** Hash of the BTF, since there is no file. */
  async sha256(): Promise<string> {
    return createHash('sha256').update(this.#btf.read()).digest('hex');
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  /** The memory that all of this comes from. */
  get evidence(): MemoryEvidence {
    const { tables, baseAt } = this.#kallsyms.places;
    const linked = (offset: number): string => hex(this.#tablesAt + BigInt(offset) - this.#slide);
    const config = this.#configPlace();
    return {
      ranges: [
        ...tables.map(({ start, end }) => ({ address: linked(start), length: end - start })),
        { address: hex(this.#btf.address - this.#slide), length: this.#btf.size },
        ...(config && this.config() !== null
          ? [{ address: hex(config.address - this.#slide), length: config.length }]
          : []),
      ],
      moved: baseAt === null ? null : linked(baseAt),
    };
  }

  /** 0 if nothing shows that the kernel was moved. */
  #findSlide(): bigint {
    const text = this.#running.get('_text');
    const parameters = this.#running.get('boot_params');
    if (text === undefined || parameters === undefined) return 0n;
    const word = this.#read(parameters + BigInt(PREF_ADDRESS), 8);
    const preferred = word === null ? 0n : asBuffer(word).readBigUInt64LE();
    const slide = text - KERNEL_IMAGE - preferred;
    return preferred !== 0n && slide >= 0n && slide < MAX_SLIDE && slide % SLIDE_STEP === 0n ? slide : 0n;
  }

  #between(name: string, startSymbol: string, endSymbol: string, most: number): SectionData | null {
    const start = this.#running.get(startSymbol);
    const end = this.#running.get(endSymbol);
    if (start === undefined || end === undefined || end <= start || end - start > BigInt(most)) return null;
    const bytes = this.#read(start, Number(end - start));
    return bytes && sectionOf(name, { address: start, bytes });
  }

  #read(address: bigint, length: number): Uint8Array | null {
    return readIn(this.#parts, address, length);
  }
}

/** Reads bytes of a running kernel; null if there are none. */
export type ReadMore = (address: bigint, length: number) => Promise<Uint8Array | null>;

interface FoundTables {
  readonly kallsyms: Kallsyms;
  /** Address of the part that contains them. */
  readonly address: bigint;
}

function findTables(parts: readonly MemoryPart[]): FoundTables | null {
  for (const { address, bytes } of parts) {
    const kallsyms = findKallsyms(asBuffer(bytes), address, (at, length) => readIn(parts, at, length));
    if (kallsyms) return { kallsyms, address };
  }
  return null;
}

function readIn(parts: readonly MemoryPart[], address: bigint, length: number): Uint8Array | null {
  const part = partAt(parts, address);
  if (part === undefined) return null;
  const offset = Number(address - part.address);
  return offset + length <= part.bytes.length ? part.bytes.subarray(offset, offset + length) : null;
}

function partAt(parts: readonly MemoryPart[], address: bigint): MemoryPart | undefined {
  return parts.find((part) => address >= part.address && address < part.address + BigInt(part.bytes.length));
}

const LANDMARKS = [
  ...['_text', 'boot_params', 'linux_banner', '__start_BTF', '__stop_BTF', '__start_notes', '__stop_notes'],
  ...['kernel_config_data', 'kernel_config_data_end'],
];

/** Symbols as linked: those of the image were moved, per-CPU ones at 0 were not. */
function* moved(symbols: Iterable<KernelSymbol>, slide: bigint): Generator<KernelSymbol> {
  for (const symbol of symbols) {
    const address = symbol.address >= KERNEL_IMAGE ? symbol.address - slide : symbol.address;
    yield { ...symbol, address };
  }
}

function sectionOf(name: string, { address, bytes }: MemoryPart): SectionData {
  return {
    name,
    address,
    size: bytes.length,
    read: (offset = 0, length = bytes.length - offset, target) => {
      const part = bytes.subarray(offset, offset + length);
      if (!target) return part;
      target.set(part);
      return target.subarray(0, length);
    },
  };
}

function hex(address: bigint): string {
  return `0x${address.toString(16)}`;
}

function missing(name: string, table: MemoryTable, buildId: string | null): ExtractError {
  const what =
    table === 'btf'
      ? 'no types (BTF: built with CONFIG_DEBUG_INFO_BTF)'
      : 'no symbols that name its data (kallsyms: built with CONFIG_KALLSYMS_ALL)';
  return new ExtractError('no-debug-information', `the ${name} has ${what}`, { missing: table, buildId });
}
