import type { KernelFile, SectionData } from '../elf/kernel-file.ts';
import { ExtractError } from '../error.ts';
import { unitOffsetAt } from './address-ranges.ts';
import { Libdwarf, LibdwarfError, SCAN, type SectionName } from './libdwarf.ts';
import { type DwarfRecord, FLAG, TAG } from './record.ts';
import { MAX_HEADER, parseUnitHeader, type Unit, type UnitSection } from './unit.ts';

/** Sections that are loaded whole; the ones with the units are read unit by unit. */
const WHOLE: readonly SectionName[] = [
  '.debug_abbrev',
  '.debug_str',
  '.debug_line_str',
  '.debug_str_offsets',
  '.debug_addr',
];
/** Address ranges beyond this are not read: a distribution's kernel has about 200 KiB. */
const MAX_RANGES = 32 << 20;
/** Enough of a unit for its root entry. */
const HEAD = 1024;
/** The largest units of a kernel have a few times that. */
const MIN_WINDOW = 1 << 20;
/** No attribute that a root entry has, but a string, is longer. */
const TAIL = 32;

/**
 * The units of a kernel's DWARF, of which no more is read than asked for: hopping from header to header costs a
 * few dozen bytes each, a unit's name its first kilobyte, and only units whose types are wanted are read whole.
 */
export class DwarfFile {
  readonly #path: string;
  readonly #sections: ReadonlyMap<UnitSection, SectionData>;
  readonly #ranges: SectionData | null;
  readonly #libdwarf: Libdwarf;
  readonly #units: Unit[] = [];
  /** By offset in `.debug_info`: those met out of order, until the hops come to them. */
  readonly #early = new Map<number, Unit>();
  readonly #hops: Iterator<Unit>;
  readonly #signatures = new Map<bigint, Unit>();
  #window = { address: 0, size: 0 };
  #open: { unit: Unit; whole: boolean; root: DwarfRecord } | null = null;

  /** @throws ExtractError `no-debug-information`, `corrupt-dwarf` */
  constructor(file: KernelFile) {
    this.#path = file.path;
    const present = (name: string) => {
      const section = file.section(name);
      return section?.size ? section : null;
    };
    const sections = new Map<UnitSection, SectionData>();
    for (const name of ['.debug_info', '.debug_types'] as const) {
      const section = present(name);
      if (section) sections.set(name, section);
    }
    if (!sections.has('.debug_info') || !present('.debug_abbrev')) {
      throw new ExtractError(
        'no-debug-information',
        `${file.path} has no DWARF; give the vmlinux of the kernel's debug package, or one built with CONFIG_DEBUG_INFO`,
        { file: file.path },
      );
    }
    this.#sections = sections;
    this.#ranges = present('.debug_aranges');
    const whole = WHOLE.map(present).filter((section) => section !== null);
    this.#libdwarf = this.#guard('.debug_info', 0, () => {
      const libdwarf = new Libdwarf(whole.reduce((sum, section) => sum + section.size, 0));
      for (const section of whole) {
        const address = libdwarf.allocate(section.size);
        section.read(0, section.size, libdwarf.memory.subarray(address, address + section.size));
        libdwarf.setSection(section.name as SectionName, address, section.size, true);
      }
      return libdwarf;
    });
    this.#hops = this.#hop();
  }

  /** Bytes of all units. */
  get size(): number {
    return [...this.#sections.values()].reduce((sum, section) => sum + section.size, 0);
  }

  /** All units in file order, those of `.debug_types` last. @throws ExtractError `corrupt-dwarf` */
  *units(): Generator<Unit> {
    for (let index = 0; ; index++) {
      if (index === this.#units.length) {
        const next = this.#hops.next();
        if (next.done) return;
        this.#units.push(next.value);
      }
      yield this.#units[index]!;
    }
  }

  /** The unit that probably has the code at an address, found without reading others; null where nothing says so. @throws ExtractError */
  unitWithCode(address: bigint): Unit | null {
    if (!this.#ranges || this.#ranges.size > MAX_RANGES) return null;
    const offset = unitOffsetAt(this.#ranges.read(), address);
    const section = this.#sections.get('.debug_info')!;
    if (offset === null || offset >= section.size) return null;
    const available = section.size - offset;
    const bytes = section.read(offset, Math.min(MAX_HEADER, available));
    const unit = parseUnitHeader(bytes, '.debug_info', offset, available);
    if (typeof unit === 'string') return null;
    this.#early.set(offset, unit);
    return unit;
  }

  /** Path of the unit's source file as the compiler was given it. @throws ExtractError `corrupt-dwarf` */
  unitName(unit: Unit): string | null {
    if (this.#open?.unit !== unit) this.#openHead(unit);
    return this.#open!.root.name;
  }

  /** How messages call a unit. */
  describe(unit: Unit): string {
    return this.unitName(unit) ?? `the unit at 0x${unit.offset.toString(16)} of ${unit.section}`;
  }

  /** Adds a name to those that {@link definitions} looks for. */
  want(name: string): void {
    this.#guard('.debug_info', 0, () => this.#libdwarf.want(name));
  }

  /**
   * Definitions at the unit's top level, without those equal to one that an earlier call gave.
   * @throws ExtractError `corrupt-dwarf`
   */
  definitions(unit: Unit, what: keyof typeof SCAN): DwarfRecord[] {
    this.#openWhole(unit);
    return this.#guard(unit.section, unit.offset, () => this.#libdwarf.scan(SCAN[what]));
  }

  /** Whether any type read so far lies in another unit than what refers to it, as after dwz or link-time optimisation. */
  get hasCrossings(): boolean {
    return this.#libdwarf.hasCrossings;
  }

  /** Names of all structures and unions of the file. @throws ExtractError `corrupt-dwarf` */
  *structureNames(): Generator<string> {
    this.#guard('.debug_info', 0, () => this.#libdwarf.forgetScans());
    for (const unit of this.units()) {
      for (const { name, tag } of this.definitions(unit, 'names')) {
        if (name !== null && tag !== TAG.enumerationType) yield name;
      }
    }
  }

  /** The entry at `offset` of the unit, then its children. @throws ExtractError `corrupt-dwarf` */
  tree(unit: Unit, offset: number): [DwarfRecord, ...DwarfRecord[]] {
    this.#openWhole(unit);
    const records = this.#guard(unit.section, unit.offset, () => this.#libdwarf.readTree(offset));
    return records as [DwarfRecord, ...DwarfRecord[]];
  }

  /** Where an entry's type is; null for void. @throws ExtractError `corrupt-dwarf` */
  typeOf(unit: Unit, { flags, type, offset }: DwarfRecord): { unit: Unit; offset: number } | null {
    if (!(flags & (FLAG.hasType | FLAG.externalType))) return null;
    if (flags & FLAG.typeIsSignature) {
      const home = this.#typeUnit(type);
      if (!home) this.corrupt(unit, offset, `no type unit has signature 0x${type.toString(16)}`);
      return { unit: home, offset: home.type!.offset };
    }
    const target = Number(type);
    if (!(flags & FLAG.typeInSection)) return { unit, offset: target };
    const home = this.#unitAt(target);
    if (!home) this.corrupt(unit, offset, `a reference leads to 0x${type.toString(16)}, outside the section`);
    return { unit: home, offset: target - home.offset };
  }

  /** @param offset from the unit's header @throws ExtractError `corrupt-dwarf`, always */
  corrupt(unit: Unit, offset: number, reason: string): never {
    this.#corrupt(unit.section, unit.offset + offset, reason);
  }

  #corrupt(section: UnitSection, offset: number, reason: string, cause?: unknown): never {
    throw new ExtractError(
      'corrupt-dwarf',
      `the DWARF of ${this.#path} is corrupt at 0x${offset.toString(16)} of ${section}: ${reason}; get an intact copy of the file`,
      { file: this.#path, section, offset },
      { cause },
    );
  }

  #guard<T>(section: UnitSection, base: number, call: () => T): T {
    try {
      return call();
    } catch (error) {
      if (!(error instanceof LibdwarfError)) throw error;
      this.#open = null;
      this.#corrupt(section, base + error.offset, error.message, error);
    }
  }

  *#hop(): Generator<Unit> {
    for (const [name, section] of this.#sections) {
      for (let offset = 0; offset < section.size; ) {
        const available = section.size - offset;
        const bytes = section.read(offset, Math.min(MAX_HEADER, available));
        const early = name === '.debug_info' ? this.#early.get(offset) : undefined;
        const unit = early ?? parseUnitHeader(bytes, name, offset, available);
        if (typeof unit === 'string') this.#corrupt(name, offset, unit);
        if (unit.type) this.#signatures.set(unit.type.signature, unit);
        yield unit;
        offset += unit.size;
      }
    }
  }

  #typeUnit(signature: bigint): Unit | null {
    for (const _ of this.units()) if (this.#signatures.has(signature)) break;
    return this.#signatures.get(signature) ?? null;
  }

  #unitAt(offset: number): Unit | null {
    for (const unit of this.units()) {
      if (unit.section === '.debug_info' && offset >= unit.offset && offset < unit.offset + unit.size)
        return unit;
    }
    return null;
  }

  #openHead(unit: Unit): void {
    if (unit.size > HEAD) {
      try {
        this.#load(unit, HEAD);
        if (this.#libdwarf.rootExtent() + TAIL <= HEAD) return;
      } catch (error) {
        // The root entry may just be longer; what is wrong with it shows when all of it is there.
        if (!(error instanceof ExtractError)) throw error;
      }
    }
    this.#load(unit, unit.size);
  }

  #openWhole(unit: Unit): void {
    if (this.#open?.unit !== unit || !this.#open.whole) this.#load(unit, unit.size);
  }

  /** Opens a unit with its first `length` bytes in memory. */
  #load(unit: Unit, length: number): void {
    this.#open = null;
    this.#guard(unit.section, unit.offset, () => {
      const libdwarf = this.#libdwarf;
      if (this.#window.size < unit.size + TAIL) {
        if (this.#window.address) libdwarf.release(this.#window.address);
        this.#window = { address: 0, size: 0 };
        const size = Math.max(unit.size, MIN_WINDOW) + TAIL;
        this.#window = { address: libdwarf.allocate(size), size };
      }
      const { address } = this.#window;
      const end = address + length;
      this.#sections.get(unit.section)!.read(unit.offset, length, libdwarf.memory.subarray(address, end));
      // Ends a string that goes on where nothing was read.
      libdwarf.memory.fill(0, end, end + TAIL);
      const other = unit.section === '.debug_info' ? '.debug_types' : '.debug_info';
      libdwarf.setSection(other, 0, 0, false);
      libdwarf.setSection(unit.section, address, unit.size, false);
      const root = libdwarf.openUnit(unit.section);
      this.#open = { unit, whole: length === unit.size, root };
    });
  }
}
