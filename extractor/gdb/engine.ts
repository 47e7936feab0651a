import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { canonicalName, type Structure } from '../contract.ts';
import { DwarfFile } from '../dwarf/dwarf-file.ts';
import { pauses } from '../dwarf/pauses.ts';
import { TAG } from '../dwarf/record.ts';
import { findSchedulerUnit, unitsBeside } from '../dwarf/scheduler-unit.ts';
import type { Unit } from '../dwarf/unit.ts';
import type { KernelFile, SectionData } from '../elf/kernel-file.ts';
import type { Engine, EngineResult, ExtractRequest } from '../engine.ts';
import { ExtractError } from '../error.ts';
import { structNotFound } from '../names.ts';
import { type CarvedSection, writeElf } from './carve.ts';
import { GdbSession } from './session.ts';
import { GdbTypes } from './types.ts';

/** Sections that a unit's types refer to. */
const SHARED = [
  '.debug_abbrev',
  '.debug_str',
  '.debug_line_str',
  '.debug_str_offsets',
  '.debug_addr',
  '.debug_types',
];
const CHUNK = 1 << 20;
const IDENTIFIER = /^[A-Za-z_]\w*$/;

/**
 * Asks gdb for a second opinion, since it shares no code with the other engines. gdb gets a file with only the units
 * that define the requested types; it prints the same from that as from the whole kernel.
 */
export const gdbEngine: Engine = {
  name: 'gdb',

  async unavailable(file: KernelFile, request: ExtractRequest): Promise<string | null> {
    if (!file.section('.debug_info')?.size)
      return 'it has no DWARF (kernels built with CONFIG_DEBUG_INFO do)';
    if (request.structs === 'all') return 'gdb is asked about one structure at a time, not about all';
    if (Object.keys(request.units ?? {}).length > 0) return 'gdb is not asked about single source files';
    const foreign = request.required.find((name) => !IDENTIFIER.test(name));
    if (foreign !== undefined)
      return `gdb is asked about names of plain letters, digits and _ only, not about ${JSON.stringify(foreign)}`;
    return (await GdbSession.installed()) ? null : 'gdb is not installed (apt install gdb)';
  },

  async extract(file: KernelFile, request: ExtractRequest): Promise<EngineResult> {
    const reason = await this.unavailable(file, request);
    if (reason !== null || request.structs === 'all') {
      throw new ExtractError('engine-unavailable', `the gdb engine cannot read ${file.path}: ${reason}`, {
        file: file.path,
        engine: 'gdb',
      });
    }
    const structs = [...new Set([...request.structs, ...request.required])].filter((name) =>
      IDENTIFIER.test(name),
    );
    const enums = request.enums.filter((name) => IDENTIFIER.test(name));
    const dwarf = new DwarfFile(file);
    const constants = (request.constants ?? []).filter((name) => IDENTIFIER.test(name));
    const units = await chooseUnits(file, dwarf, [...structs, ...enums, ...constants], request);
    const folder = mkdtempSync(join(tmpdir(), 'domsched-gdb-'));
    try {
      const path = join(folder, 'units');
      writeElf(path, pieces(file, units));
      const types = new GdbTypes(new GdbSession(path, request.signal));
      const result = await types.read(structs, enums);
      const found = Object.fromEntries(
        result.structs.map((structure): [string, Structure] => [structure.name, structure]),
      );
      const missing = request.required.filter((name) => !Object.hasOwn(found, canonicalName(name)));
      if (missing.length) throw structNotFound(missing, dwarf.structureNames(), file.path);
      return {
        structs: found,
        enums: result.enums,
        constants: await types.constants(constants),
        dwarfVersion: units.reduce<number | null>(
          (highest, { version }) => Math.max(highest ?? 0, version),
          null,
        ),
      };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

/** The units that the dwarf engine reads, without those that add no definition. */
async function chooseUnits(
  file: KernelFile,
  dwarf: DwarfFile,
  wanted: readonly string[],
  request: ExtractRequest,
): Promise<Unit[]> {
  for (const name of new Set(wanted)) dwarf.want(name);
  const chosen = new Set<Unit>();
  const structures = new Set<string>();
  const others = new Set<string>();
  const read = (unit: Unit) => {
    for (const { name, tag, offset } of dwarf.definitions(unit, 'wanted')) {
      const isStructure = tag !== TAG.enumerationType && tag !== TAG.typedef;
      // An untagged enumeration is here for a wanted enumerator, which no other unit has.
      const key = isStructure ? name! : `${tag} ${name ?? `${unit.offset} ${offset}`}`;
      const found = isStructure ? structures : others;
      if (!found.has(key)) chosen.add(unit);
      found.add(key);
    }
  };
  const pause = pauses(dwarf, request);
  const home = await findSchedulerUnit(dwarf, file, pause);
  if (home) {
    read(home);
    chosen.add(home);
    const beside = await unitsBeside(dwarf, file, new Set(wanted), structures, pause);
    for (const { unit } of beside) read(unit);
  }
  const canonical = new Set([...structures].map(canonicalName));
  const isComplete =
    canonical.size > 0 && request.required.every((name) => canonical.has(canonicalName(name)));
  if (!isComplete || request.thorough) {
    for (const unit of dwarf.units()) {
      if (unit !== home) read(unit);
      await pause(unit);
    }
  }
  if (
    [...chosen].some(({ home }) => home.kind !== 'own') ||
    file.section('.gnu_debugaltlink') ||
    file.section('.debug_sup')
  ) {
    throw new ExtractError(
      'engine-unavailable',
      `the gdb engine cannot read ${file.path}, whose debug information is in several files; --engine dwarf can`,
      { file: file.path, engine: 'gdb' },
    );
  }
  // A unit that refers to others is useless without them, and units refer to type units.
  const isAlone = !dwarf.hasCrossings && [...chosen].every(({ type }) => type === null);
  return isAlone ? [...chosen] : [...dwarf.units()];
}

function pieces(file: KernelFile, units: readonly Unit[]): CarvedSection[] {
  const info = file.section('.debug_info')!;
  const piece = (
    section: SectionData,
    name: string,
    ranges: readonly { offset: number; size: number }[],
  ): CarvedSection => ({
    name,
    size: ranges.reduce((sum, { size }) => sum + size, 0),
    *chunks() {
      for (const { offset, size } of ranges) {
        for (let at = 0; at < size; at += CHUNK) yield section.read(offset + at, Math.min(CHUNK, size - at));
      }
    },
  });
  const shared = SHARED.map((name) => [name, file.section(name)] as const).flatMap(([name, section]) =>
    section?.size ? [piece(section, name, [{ offset: 0, size: section.size }])] : [],
  );
  return [
    piece(
      info,
      '.debug_info',
      units.filter(({ section }) => section === '.debug_info'),
    ),
    ...shared,
  ];
}
