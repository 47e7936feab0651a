import type { Companion, Companions, KernelFile, SectionData } from '../elf/kernel-file.ts';
import { ExtractError } from '../error.ts';
import { unitOffsetAt } from './address-ranges.ts';
import { Libdwarf, LibdwarfError, SCAN, type SectionName } from './libdwarf.ts';
import { type DwarfRecord, FLAG, TAG } from './record.ts';
import { MAX_HEADER, parseUnitHeader, type Unit, type UnitHome, type UnitSection } from './unit.ts';

/** Sections that are loaded whole; those with the units are read unit by unit. */
const WHOLE: readonly SectionName[] = [
  '.debug_abbrev',
  '.debug_str',
  '.debug_line_str',
  '.debug_str_offsets',
  '.debug_addr',
];
/** Larger address ranges are not read: a distribution's kernel has about 200 KiB. */
const MAX_RANGES = 32 << 20;
/** Enough of a unit for its root entry. */
const HEAD = 1024;
/** The largest units of a kernel are a few times this size. */
const MIN_WINDOW = 1 << 20;
/** Except for strings, no attribute of a root entry is longer. */
const TAIL = 32;

/**
 * The units of a kernel's DWARF, read as little as possible: a hop from header to header costs a few dozen bytes, a
 * unit's name its first kilobyte, and only units with wanted types are read whole.
 */
export class DwarfFile {
  readonly #path: string;
  readonly #own: UnitHome;
  /** The file that dwz shares between several; null if there is none. */
  readonly #alternate: UnitHome | null;
  readonly #companions: Companions | undefined;
  readonly #ranges: SectionData | null;
  readonly #libdwarf: Libdwarf;
  readonly #units: Unit[] = [];
  /** Units read out of order, by offset in `.debug_info`, until the hops reach them. */
  readonly #early = new Map<number, Unit>();
  /** Sections of a home in the module's memory: kept while the file is open, but only one `.dwo` file at a time. */
  readonly #loaded = new Map<UnitHome, Map<SectionName, { address: number; size: number }>>();
  #current: UnitHome | null = null;
  readonly #hops: Iterator<Unit>;
  readonly #signatures = new Map<bigint, Unit>();
  #window = { address: 0, size: 0 };
  #open: { unit: Unit; whole: boolean; root: DwarfRecord } | null = null;

  /** @throws ExtractError `no-debug-information`, `corrupt-dwarf` */
  constructor(file: KernelFile) {
    this.#path = file.path;
    this.#own = { path: file.path, kind: 'own', section: (name) => presentIn(file, name) };
    if (!this.#own.section('.debug_info') || !this.#own.section('.debug_abbrev')) {
      throw new ExtractError(
        'no-debug-information',
        `${file.path} has no DWARF; give the vmlinux of the kernel's debug package, or one built with CONFIG_DEBUG_INFO`,
        { file: file.path },
      );
    }
    this.#companions = file.companions;
    const alternate = file.companions?.alternate() ?? null;
    this.#alternate = alternate && homeOf(alternate, 'alternate', '');
    this.#ranges = this.#own.section('.debug_aranges');
    const size = [this.#own, this.#alternate].reduce((sum, home) => sum + (home ? wholeSize(home) : 0), 0);
    this.#libdwarf = this.#guard('.debug_info', 0, () => new Libdwarf(size));
    this.#guard('.debug_info', 0, () => this.#enter(this.#own));
    this.#hops = this.#hop();
  }

  /** Bytes of all units. */
  get size(): number {
    return UNIT_SECTIONS.reduce((sum, name) => sum + (this.#own.section(name)?.size ?? 0), 0);
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

  /**
   * Finds the unit that probably has the code at an address, without reading others; null without a hint. @throws
   * ExtractError
   */
  unitWithCode(address: bigint): Unit | null {
    if (!this.#ranges || this.#ranges.size > MAX_RANGES) return null;
    const offset = unitOffsetAt(this.#ranges.read(), address);
    const section = this.#own.section('.debug_info')!;
    if (offset === null || offset >= section.size) return null;
    const available = section.size - offset;
    const bytes = section.read(offset, Math.min(MAX_HEADER, available));
    const unit = parseUnitHeader(bytes, this.#own, '.debug_info', offset, available);
    if (typeof unit === 'string' || this.#mayBeSkeleton(unit)) return null;
    this.#early.set(offset, unit);
    return unit;
  }

  /** Path of the unit's source file as passed to the compiler. @throws ExtractError `corrupt-dwarf` */
  unitName(unit: Unit): string | null {
    if (this.#open?.unit !== unit) this.#openHead(unit);
    return this.#open!.root.name;
  }

  /** Name of a unit in messages. */
  describe(unit: Unit): string {
    return this.unitName(unit) ?? `the unit at 0x${unit.offset.toString(16)} of ${unit.section}`;
  }

  /** Adds a name that {@link definitions} looks for. */
  want(name: string): void {
    this.#guard('.debug_info', 0, () => this.#libdwarf.want(name));
  }

  /**
   * Definitions at the unit's top level, without those equal to one returned earlier.
   * @throws ExtractError `corrupt-dwarf`
   */
  definitions(unit: Unit, what: keyof typeof SCAN): DwarfRecord[] {
    this.#openWhole(unit);
    return this.#guard(unit.section, unit.offset, () => this.#libdwarf.scan(SCAN[what]));
  }

  /** Whether any type read so far is in another unit than its reference, as after dwz or link-time optimisation. */
  get hasCrossings(): boolean {
    return this.#libdwarf.hasCrossings;
  }

  /** Makes {@link definitions} return everything again. */
  forgetScans(): void {
    this.#guard('.debug_info', 0, () => this.#libdwarf.forgetScans());
  }

  /** Names of all structures and unions of the file. @throws ExtractError `corrupt-dwarf` */
  *structureNames(): Generator<string> {
    this.forgetScans();
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

  /** The position of an entry's type; null for void. @throws ExtractError `corrupt-dwarf` */
  typeOf(unit: Unit, { flags, type, offset }: DwarfRecord): { unit: Unit; offset: number } | null {
    if (!(flags & (FLAG.hasType | FLAG.externalType))) return null;
    if (flags & FLAG.typeIsSignature) {
      const home = this.#typeUnit(type);
      if (!home) this.corrupt(unit, offset, `no type unit has signature 0x${type.toString(16)}`);
      return { unit: home, offset: home.type!.offset };
    }
    const target = Number(type);
    if (!(flags & (FLAG.typeInSection | FLAG.typeInAlternate))) return { unit, offset: target };
    const file = flags & FLAG.typeInAlternate ? this.#alternate : unit.home;
    const home = file && this.#unitAt(file, target);
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
    for (const home of [this.#own, this.#alternate]) if (home) yield* this.#unitsOf(home);
  }

  *#unitsOf(home: UnitHome): Generator<Unit> {
    for (const name of UNIT_SECTIONS) {
      const section = home.section(name);
      if (!section) continue;
      for (let offset = 0; offset < section.size; ) {
        const available = section.size - offset;
        const bytes = section.read(offset, Math.min(MAX_HEADER, available));
        const early = home === this.#own && name === '.debug_info' ? this.#early.get(offset) : undefined;
        const unit = early ?? parseUnitHeader(bytes, home, name, offset, available);
        if (typeof unit === 'string') this.#corrupt(name, offset, unit);
        if (unit.type) this.#signatures.set(unit.type.signature, unit);
        const split = this.#mayBeSkeleton(unit) ? this.#splitOf(unit) : null;
        if (split) yield* this.#unitsOf(split);
        else yield unit;
        offset += unit.size;
      }
    }
  }

  /** Before DWARF 5, only split units have addresses in a separate section. */
  #mayBeSkeleton({ home, skeleton, version }: Unit): boolean {
    return home.kind === 'own' && (skeleton || (version < 5 && home.section('.debug_addr') !== null));
  }

  #splitOf(unit: Unit): UnitHome | null {
    this.#openHead(unit);
    const file = this.#libdwarf.splitFile();
    const found = file && this.#companions?.split(file.name, file.directory);
    return found ? homeOf(found, 'split', '.dwo') : null;
  }

  #typeUnit(signature: bigint): Unit | null {
    for (const _ of this.units()) if (this.#signatures.has(signature)) break;
    return this.#signatures.get(signature) ?? null;
  }

  #unitAt(home: UnitHome, offset: number): Unit | null {
    for (const unit of this.units()) {
      if (unit.home !== home) continue;
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
        // The root entry may just be longer; a real defect will show once it is complete.
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
      this.#enter(unit.home);
      if (this.#window.size < unit.size + TAIL) {
        if (this.#window.address) libdwarf.release(this.#window.address);
        this.#window = { address: 0, size: 0 };
        const size = Math.max(unit.size, MIN_WINDOW) + TAIL;
        this.#window = { address: libdwarf.allocate(size), size };
      }
      const { address } = this.#window;
      const end = address + length;
      unit.home.section(unit.section)!.read(unit.offset, length, libdwarf.memory.subarray(address, end));
      // Terminates a string that continues into bytes that were not read.
      libdwarf.memory.fill(0, end, end + TAIL);
      const other = unit.section === '.debug_info' ? '.debug_types' : '.debug_info';
      libdwarf.setSection(other, 0, 0);
      libdwarf.setSection(unit.section, address, unit.size);
      const root = libdwarf.openUnit(unit.section);
      this.#open = { unit, whole: length === unit.size, root };
    });
  }

  /** Selects the home whose sections libdwarf reads. */
  #enter(home: UnitHome): void {
    if (this.#current === home) return;
    const libdwarf = this.#libdwarf;
    this.#current = null;
    for (const [other, sections] of this.#loaded) {
      if (other.kind !== 'split' || other === home) continue;
      for (const { address } of sections.values()) libdwarf.release(address);
      this.#loaded.delete(other);
    }
    if (!this.#loaded.has(home)) this.#loaded.set(home, this.#loadWhole(home));
    const sections = this.#loaded.get(home)!;
    for (const name of WHOLE) {
      const { address, size } = sections.get(name) ?? { address: 0, size: 0 };
      libdwarf.setSection(name, address, size);
    }
    const alternate = home === this.#own ? this.#alternate : null;
    if (alternate && !this.#loaded.has(alternate)) this.#loaded.set(alternate, this.#loadWhole(alternate));
    const shared = alternate && this.#loaded.get(alternate)!.get('.debug_str');
    libdwarf.setSection('alternate .debug_str', shared?.address ?? 0, shared?.size ?? 0);
    libdwarf.setSplit(home.kind === 'split');
    this.#current = home;
  }

  #loadWhole(home: UnitHome): Map<SectionName, { address: number; size: number }> {
    const loaded = new Map<SectionName, { address: number; size: number }>();
    for (const name of WHOLE) {
      const section = home.section(name);
      if (!section) continue;
      const { size } = section;
      const address = this.#libdwarf.allocate(size);
      section.read(0, size, this.#libdwarf.memory.subarray(address, address + size));
      if (home.kind !== 'split') this.#libdwarf.keep(address, size);
      loaded.set(name, { address, size });
    }
    return loaded;
  }
}

const UNIT_SECTIONS: readonly UnitSection[] = ['.debug_info', '.debug_types'];

function presentIn(file: { section(name: string): SectionData | null }, name: string): SectionData | null {
  const section = file.section(name);
  return section?.size ? section : null;
}

/** @param suffix of its sections' names */
function homeOf(file: Companion, kind: UnitHome['kind'], suffix: string): UnitHome {
  return { path: file.path, kind, section: (name) => presentIn(file, `${name}${suffix}`) };
}

function wholeSize(home: UnitHome): number {
  return WHOLE.reduce((sum, name) => sum + (home.section(name)?.size ?? 0), 0);
}
