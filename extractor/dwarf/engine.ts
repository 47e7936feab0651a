import { canonicalName } from '../contract.ts';
import { resolve } from '../ctype.ts';
import type { KernelFile } from '../elf/kernel-file.ts';
import type { Engine, EngineResult, ExtractRequest } from '../engine.ts';
import { ExtractError } from '../error.ts';
import type { EnumNode } from '../graph.ts';
import { LayoutBuilder } from '../layout.ts';
import { spellings, structNotFound } from '../names.ts';
import { DwarfFile } from './dwarf-file.ts';
import { pauses } from './pauses.ts';
import { TAG } from './record.ts';
import { findSchedulerUnit, unitsBeside } from './scheduler-unit.ts';
import { TypeReader } from './type-reader.ts';
import type { Unit } from './unit.ts';

/**
 * Reads DWARF 2 to 5 through libdwarf.
 *
 * Structures are looked up in the scheduler's own unit first, since its definitions are those that the scheduler uses.
 * Other units are read if that unit lacks a required structure or does not exist, or if the request is thorough; a
 * definition that differs in any of them is then a `struct-conflict`. A request for all structures reads all units and
 * keeps each different definition. A structure that is requested with its source file comes from that file only.
 */
export const dwarfEngine: Engine = {
  name: 'dwarf',

  async unavailable(file: KernelFile): Promise<string | null> {
    return file.section('.debug_info')?.size
      ? null
      : 'it has no DWARF (kernels built with CONFIG_DEBUG_INFO do)';
  },

  async extract(file: KernelFile, request: ExtractRequest): Promise<EngineResult> {
    const extraction = new DwarfExtraction(file, request);
    await extraction.run();
    return extraction.result(file.path);
  },
};

/** Files named in a message. */
const MAX_FILES = 8;

class DwarfExtraction {
  readonly #file: KernelFile;
  readonly #dwarf: DwarfFile;
  readonly #types: TypeReader;
  readonly #request: ExtractRequest;
  readonly #builder: LayoutBuilder;
  /** Structures that any unit may define. */
  readonly #structs: ReadonlySet<string>;
  /** Structures requested from one source file, with the end of its path. */
  readonly #chosen: ReadonlyMap<string, string>;
  readonly #enums: ReadonlySet<string>;
  readonly #constantNames: ReadonlySet<string>;
  readonly #constants = new Map<string, number>();
  readonly #found = new Set<string>();
  readonly #typedefs = new Map<string, { unit: Unit; offset: number }>();
  #version: number | null = null;

  constructor(file: KernelFile, request: ExtractRequest) {
    this.#file = file;
    this.#dwarf = new DwarfFile(file);
    this.#types = new TypeReader(this.#dwarf);
    this.#request = request;
    const onConflict = request.structs === 'all' ? 'flavour' : 'refuse';
    this.#builder = new LayoutBuilder({
      corrupt: 'corrupt-dwarf',
      onConflict,
      moreOf: (name) => this.#filesThatDefine(name, false),
    });
    const names = request.structs === 'all' ? [] : [...request.structs, ...request.required];
    this.#chosen = new Map(Object.entries(request.units ?? {}));
    this.#structs = new Set(names.filter((name) => !this.#chosen.has(name)));
    this.#enums = new Set(request.enums);
    this.#constantNames = new Set(request.constants);
  }

  async run(): Promise<void> {
    const anywhere = new Set([...this.#structs, ...this.#enums, ...this.#constantNames]);
    for (const name of [...anywhere, ...this.#chosen.keys()]) this.#dwarf.want(name);
    if (this.#request.structs === 'all') return this.#readUnits('every', null);
    const pause = pauses(this.#dwarf, this.#request);
    if (anywhere.size > 0) {
      const home = await findSchedulerUnit(this.#dwarf, this.#file, pause);
      if (home) this.#readUnit(home, 'wanted');
      const beside = home
        ? await unitsBeside(this.#dwarf, this.#file, this.#structs, this.#found, pause)
        : [];
      for (const { unit, structures } of beside) this.#readUnit(unit, 'wanted', structures);
      const isComplete = this.#found.size > 0 && this.#missing().every((name) => this.#chosen.has(name));
      if (!isComplete || this.#request.thorough) await this.#readUnits('wanted', home);
      for (const [name, { unit, offset }] of this.#typedefs) this.#addTypedef(name, unit, offset);
    }
    if (this.#chosen.size > 0) await this.#readChosen();
  }

  async #readChosen(): Promise<void> {
    const pause = pauses(this.#dwarf, this.#request);
    const paths = new Map<Unit, string>();
    for (const unit of this.#dwarf.units()) {
      const path = this.#dwarf.unitName(unit);
      if (path !== null) paths.set(unit, path);
      await pause(unit);
    }
    for (const file of new Set(this.#chosen.values())) {
      const names = new Set([...this.#chosen].filter(([, its]) => its === file).map(([name]) => name));
      // A complete path means exactly that file, even if it is also the end of another's.
      const exact = [...paths].filter(([, path]) => path === file);
      const units = exact.length > 0 ? exact : [...paths].filter(([, path]) => path.endsWith(`/${file}`));
      this.#dwarf.forgetScans();
      for (const [unit] of units) this.#readUnit(unit, 'wanted', names);
    }
  }

  /**
   * Source files that define a structure.
   * @param again also report definitions that were met before
   */
  #filesThatDefine(name: string, again: boolean): string[] {
    if (again) this.#dwarf.forgetScans();
    const files: string[] = [];
    for (const unit of this.#dwarf.units()) {
      if (files.length === MAX_FILES) break;
      const defines = this.#dwarf
        .definitions(unit, 'wanted')
        .some(
          (found) => found.name === name && (found.tag === TAG.structureType || found.tag === TAG.unionType),
        );
      const path = defines ? this.#dwarf.unitName(unit) : null;
      if (path !== null) files.push(path);
    }
    return [...new Set(files)];
  }

  /** @throws ExtractError `struct-not-found` */
  result(path: string): EngineResult {
    const missing = this.#missing();
    for (const name of missing) {
      const file = this.#chosen.get(name);
      const others =
        file === undefined ? [] : spellings(name).flatMap((each) => this.#filesThatDefine(each, true));
      if (others.length === 0) continue;
      throw new ExtractError(
        'struct-not-found',
        `no source file ${file} of ${path} defines ${name}; these do: ${others.join(', ')}`,
        { file: path, missing: [name], files: others },
      );
    }
    if (missing.length) throw structNotFound(missing, this.#dwarf.structureNames(), path);
    return {
      structs: this.#builder.structs(),
      enums: this.#builder.enums(),
      constants: Object.fromEntries(this.#constants),
      dwarfVersion: this.#version,
    };
  }

  #missing(): string[] {
    const found = new Set([...this.#found, ...this.#typedefs.keys()].map(canonicalName));
    return this.#request.required.filter((name) => !found.has(canonicalName(name)));
  }

  async #readUnits(what: 'wanted' | 'every', except: Unit | null): Promise<void> {
    const pause = pauses(this.#dwarf, this.#request);
    for (const unit of this.#dwarf.units()) {
      if (unit !== except) this.#readUnit(unit, what);
      await pause(unit);
    }
  }

  #readUnit(unit: Unit, what: 'wanted' | 'every', structs: ReadonlySet<string> = this.#structs): void {
    const every = what === 'every';
    const where = this.#dwarf.describe(unit);
    for (const { name, tag, offset } of this.#dwarf.definitions(unit, what)) {
      if (tag === TAG.typedef) {
        if (structs.has(name!) && !this.#typedefs.has(name!)) this.#typedefs.set(name!, { unit, offset });
        continue;
      }
      const wanted = tag === TAG.enumerationType ? this.#enums : structs;
      if (name !== null && !every && !wanted.has(name)) continue;
      const node = this.#types.node(unit, offset);
      if (node.kind === 'enum') {
        if (name !== null) this.#builder.addEnum(node, where);
        else this.#addConstants(node);
      } else if (node.kind === 'struct' || node.kind === 'union') {
        this.#builder.add({ node, where });
        this.#found.add(name!);
      } else continue;
      this.#version = Math.max(this.#version ?? 0, unit.version);
    }
    // Every definition is built by now; the next unit with the same one gets its own nodes.
    if (every) unit.nodes.clear();
  }

  #addConstants(node: EnumNode): void {
    for (const [name, value] of node.values) {
      if (this.#constantNames.has(name)) this.#constants.set(name, Number(value));
    }
  }

  /** Names anonymous structures by their typedef, if no structure has the name as its tag. */
  #addTypedef(name: string, unit: Unit, offset: number): void {
    if (this.#found.has(name)) return;
    const node = resolve(() => this.#types.node(unit, offset));
    if ((node.kind !== 'struct' && node.kind !== 'union') || node.name !== null) return;
    this.#builder.add({ node, typedef: name, where: this.#dwarf.describe(unit) });
    this.#found.add(name);
    this.#version = Math.max(this.#version ?? 0, unit.version);
  }
}
