import type { KernelFile } from '../elf/kernel-file.ts';
import { NameMatcher } from '../elf/name-matcher.ts';
import type { Engine, EngineResult, ExtractRequest, Unknowable } from '../engine.ts';
import { ExtractError } from '../error.ts';
import { LayoutBuilder } from '../layout.ts';
import { structNotFound } from '../names.ts';
import { KIND } from './format.ts';
import { BtfTypes } from './types.ts';

const SECTION = '.BTF';
const PERCPU_SECTION = '.data..percpu';
/** The largest Debian kernel has 6 MiB. */
const MAX_BTF = 256 << 20;

/** Reads the BPF Type Format that kernels since 5.2 may carry, packed and stripped ones too. */
export const btfEngine: Engine = {
  name: 'btf',

  async unavailable(file: KernelFile, request: ExtractRequest): Promise<string | null> {
    if (Object.keys(request.units ?? {}).length > 0)
      return 'BTF does not say which source file defines a structure';
    // pahole's distilled base (6.11: "kbuild, bpf: Add module-specific pahole flags for distilled base BTF") has no members.
    if (file.section('.BTF.base')?.size) {
      return 'its BTF goes on from .BTF.base, which has no more than names and sizes: a module with its DWARF says all';
    }
    return file.section(SECTION)?.size ? null : 'it has no BTF (kernels built with CONFIG_DEBUG_INFO_BTF do)';
  },

  async extract(file: KernelFile, request: ExtractRequest): Promise<EngineResult> {
    const base = request.base && new BtfTypes(readBtf(request.base), request.base.path);
    const blob = readBtf(file);
    request.signal?.throwIfAborted();
    return extractBtf(blob, file.path, request, base);
  },
};

/** @throws ExtractError `no-debug-information`, `corrupt-btf` */
function readBtf(file: KernelFile): Uint8Array {
  const section = file.section(SECTION);
  if (!section?.size) {
    throw new ExtractError(
      'no-debug-information',
      `${file.path} has no BTF; give a kernel built with CONFIG_DEBUG_INFO_BTF, or one with DWARF`,
      { file: file.path },
    );
  }
  if (section.size > MAX_BTF) {
    throw new ExtractError(
      'corrupt-btf',
      `the BTF of ${file.path} is corrupt at byte 0: ${section.size} bytes are more than any kernel has`,
      { file: file.path, offset: 0 },
    );
  }
  return section.read();
}

/**
 * Structures from a BTF blob; from a module's, its own and those of its kernel that are requested by name.
 * @param base the kernel's types, if the blob is a module's
 * @throws ExtractError `corrupt-btf`, `unsupported-btf`, `btf-base`, `struct-not-found`, `struct-conflict`
 */
export function extractBtf(
  blob: Uint8Array,
  path: string,
  request: ExtractRequest,
  base?: BtfTypes,
): EngineResult {
  const types = new BtfTypes(blob, path, base);
  const all = request.structs === 'all';
  const wanted = new Set(request.structs === 'all' ? [] : request.structs);
  const wantedEnums = new Set(request.enums);
  // Nine in ten names are not wanted, so avoid making strings of them. C names contain no space.
  const names = [...wanted, ...wantedEnums];
  const nameOf = all || names.some((name) => name.includes(' ')) ? null : new NameMatcher(names);
  const wantedConstants = new Set(request.constants);
  const constants = new Map<string, number>();
  const builder = new LayoutBuilder({ corrupt: 'corrupt-btf', onConflict: all ? 'flavour' : 'refuse' });
  const found = new Set<string>();
  const typedefs: [name: string, id: number][] = [];

  for (let id = all ? types.firstOwn : 1; id <= types.count; id++) {
    const kind = types.kind(id);
    switch (kind) {
      case KIND.STRUCT:
      case KIND.UNION: {
        const name = nameOf ? types.wantedName(id, nameOf) : types.name(id);
        if (name === null || (!all && !wanted.has(name))) break;
        found.add(name);
        builder.add({ node: types.record(id), where: `type ${id}` });
        break;
      }
      case KIND.ENUM:
      case KIND.ENUM64: {
        if (types.isAnonymous(id)) {
          for (const [constant, value] of wantedConstants.size ? types.enumeration(id).values : []) {
            if (wantedConstants.has(constant)) constants.set(constant, Number(value));
          }
          break;
        }
        const name = nameOf ? types.wantedName(id, nameOf) : types.name(id);
        if (name === null) break;
        // An enumeration without values is only a declaration.
        if ((all || wantedEnums.has(name)) && types.enumeration(id).values.length) {
          builder.addEnum(types.enumeration(id), `type ${id}`);
        }
        break;
      }
      case KIND.TYPEDEF: {
        const name = all ? null : nameOf ? types.wantedName(id, nameOf) : types.name(id);
        if (name && wanted.has(name)) typedefs.push([name, id]);
        break;
      }
    }
  }
  for (const [name, id] of typedefs) {
    const target = types.typedefTarget(id);
    if (found.has(name) || target === 0) continue;
    const kind = types.kind(target);
    if ((kind !== KIND.STRUCT && kind !== KIND.UNION) || types.name(target) !== null) continue;
    builder.add({ node: types.record(target), typedef: name, where: `type ${target}` });
  }

  const structs = builder.structs();
  const missing = request.required.filter((name) => !Object.hasOwn(structs, name));
  if (missing.length) throw structNotFound(missing, structureNames(types), path);
  const result: EngineResult = {
    structs,
    enums: builder.enums(),
    constants: Object.fromEntries(constants),
    dwarfVersion: null,
    unknowable: unknowableIn(types),
  };
  const percpu = types.section(PERCPU_SECTION);
  if (percpu) result.percpu = Object.fromEntries(percpu.map(({ name, offset }) => [name, offset]));
  return result;
}

function unknowableIn(types: BtfTypes): Unknowable[] {
  return [
    ...(['dimensions', 'array-bounds', 'prototypes', 'atomics'] as const),
    ...(types.charsSaySign ? [] : ['char-sign' as const]),
    ...(types.enumsSaySign ? [] : ['enum-sign' as const]),
  ];
}

function structureNames(types: BtfTypes): Set<string> {
  const names = new Set<string>();
  for (let id = 1; id <= types.count; id++) {
    const kind = types.kind(id);
    const name = kind === KIND.STRUCT || kind === KIND.UNION ? types.name(id) : null;
    if (name !== null) names.add(name);
  }
  return names;
}
