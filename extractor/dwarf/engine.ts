import { canonicalName } from '../contract.ts';
import { resolve } from '../ctype.ts';
import type { KernelFile } from '../elf/kernel-file.ts';
import type { Engine, EngineResult, Request } from '../engine.ts';
import type { EnumNode } from '../graph.ts';
import { LayoutBuilder } from '../layout.ts';
import { structNotFound } from '../names.ts';
import { DwarfFile } from './dwarf-file.ts';
import { pauses } from './pauses.ts';
import { TAG } from './record.ts';
import { findSchedulerUnit } from './scheduler-unit.ts';
import { TypeReader } from './type-reader.ts';
import type { Unit } from './unit.ts';

/**
 * Reads DWARF 2 to 5 through libdwarf.
 *
 * Named structures are looked for in the scheduler's own unit, and what it says is what the scheduler does. The
 * other units are read when that unit lacks a required structure, when there is no such unit, and when the request
 * is thorough; then a definition that differs in any of them is a `struct-conflict`. All structures are taken from
 * all units, and of different definitions each is kept.
 */
export const dwarfEngine: Engine = {
  name: 'dwarf',

  async unavailable(file: KernelFile): Promise<string | null> {
    return file.section('.debug_info')?.size
      ? null
      : 'it has no DWARF (kernels built with CONFIG_DEBUG_INFO do)';
  },

  async extract(file: KernelFile, request: Request): Promise<EngineResult> {
    const extraction = new Extraction(file, request);
    await extraction.run();
    return extraction.result(file.path);
  },
};

class Extraction {
  readonly #file: KernelFile;
  readonly #dwarf: DwarfFile;
  readonly #types: TypeReader;
  readonly #request: Request;
  readonly #builder: LayoutBuilder;
  readonly #structs: ReadonlySet<string>;
  readonly #enums: ReadonlySet<string>;
  readonly #constantNames: ReadonlySet<string>;
  readonly #constants = new Map<string, number>();
  readonly #found = new Set<string>();
  readonly #typedefs = new Map<string, { unit: Unit; offset: number }>();
  #version: number | null = null;

  constructor(file: KernelFile, request: Request) {
    this.#file = file;
    this.#dwarf = new DwarfFile(file);
    this.#types = new TypeReader(this.#dwarf);
    this.#request = request;
    const onConflict = request.structs === 'all' ? 'flavour' : 'refuse';
    this.#builder = new LayoutBuilder({ corrupt: 'corrupt-dwarf', onConflict });
    this.#structs = new Set(request.structs === 'all' ? [] : [...request.structs, ...request.required]);
    this.#enums = new Set(request.enums);
    this.#constantNames = new Set(request.constants);
  }

  async run(): Promise<void> {
    for (const name of new Set([...this.#structs, ...this.#enums, ...this.#constantNames])) {
      this.#dwarf.want(name);
    }
    if (this.#request.structs === 'all') return this.#readUnits('every', null);
    const pause = pauses(this.#dwarf, this.#request);
    const home = await findSchedulerUnit(this.#dwarf, this.#file, pause);
    if (home) this.#readUnit(home, 'wanted');
    const isComplete = this.#found.size > 0 && this.#missing().length === 0;
    if (!isComplete || this.#request.thorough) await this.#readUnits('wanted', home);
    for (const [name, { unit, offset }] of this.#typedefs) this.#addTypedef(name, unit, offset);
  }

  /** @throws ExtractError `struct-not-found` */
  result(path: string): EngineResult {
    const missing = this.#missing();
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

  #readUnit(unit: Unit, what: 'wanted' | 'every'): void {
    const every = what === 'every';
    const where = this.#dwarf.describe(unit);
    for (const { name, tag, offset } of this.#dwarf.definitions(unit, what)) {
      if (tag === TAG.typedef) {
        if (this.#structs.has(name!) && !this.#typedefs.has(name!))
          this.#typedefs.set(name!, { unit, offset });
        continue;
      }
      const wanted = tag === TAG.enumerationType ? this.#enums : this.#structs;
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
    // Every definition is built by now; the next unit that has it gets nodes of its own.
    if (every) unit.nodes.clear();
  }

  #addConstants(node: EnumNode): void {
    for (const [name, value] of node.values) {
      if (this.#constantNames.has(name)) this.#constants.set(name, Number(value));
    }
  }

  /** Names of anonymous structures, where no structure has the name as its tag. */
  #addTypedef(name: string, unit: Unit, offset: number): void {
    if (this.#found.has(name)) return;
    const node = resolve(() => this.#types.node(unit, offset));
    if ((node.kind !== 'struct' && node.kind !== 'union') || node.name !== null) return;
    this.#builder.add({ node, typedef: name, where: this.#dwarf.describe(unit) });
    this.#found.add(name);
    this.#version = Math.max(this.#version ?? 0, unit.version);
  }
}
