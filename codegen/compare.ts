import { type Data, readModule } from './literals.ts';

/** One fact on which `generated/` and an extraction disagree. */
export interface Difference {
  /**
   * Kind of fact: about the kernel's build, the source of the layout, or one of its parts; `text` if all facts agree
   * but the bytes differ.
   */
  about: 'kernel' | 'provenance' | 'struct' | 'member' | 'symbol' | 'constant' | 'enum' | 'registry' | 'text';
  /** Name of the fact's subject: `rq.nr_running`, `runqueues`. */
  where: string;
  /** The differing property, such as `offset`; null if one side lacks the subject. */
  property: string | null;
  /** As text; null if absent. */
  generated: string | null;
  extracted: string | null;
  /** One line for a person. */
  message: string;
}

/** Files of a kernel's structures, by their names in its layout. @param index text of its `index.ts` */
export function structureFiles(index: string): Map<string, string> {
  const { constants, imports } = readModule(index);
  const layout = constants.get('layout');
  const found = new Map<string, string>();
  if (!(layout instanceof Map)) return found;
  for (const [key, binding] of layout) {
    const from = imports.get(String(binding));
    if (from !== undefined) found.set(key, from.slice(from.lastIndexOf('/') + 1));
  }
  return found;
}

/** Facts about a kernel itself that differ between two texts of its `index.ts`. */
export function compareIndexes(generated: string, extracted: string): Difference[] {
  if (generated === extracted) return [];
  const [left, right] = [generated, extracted].map((text) => readModule(text).constants) as [
    ModuleExports,
    ModuleExports,
  ];
  return [
    ...kernelParts(left, right),
    ...parts(left, right, '$symbols', 'symbol'),
    ...parts(left, right, '$percpu', 'symbol'),
    ...parts(left, right, '$constants', 'constant'),
    ...parts(left, right, '$enums', 'enum'),
  ];
}

/** Facts that differ between two texts of a structure's module; null stands for a missing text. */
export function compareStructures(
  name: string,
  generated: string | null,
  extracted: string | null,
): Difference[] {
  if (generated === extracted) return [];
  const a = generated === null ? undefined : only(readModule(generated).constants);
  const b = extracted === null ? undefined : only(readModule(extracted).constants);
  if (!a || !b) return [difference('struct', name, null, a ? 'there' : null, b ? 'there' : null)];
  const found = [...new Set([...a.keys(), ...b.keys()])].flatMap((key) => {
    if (key.startsWith('$')) return leaf('struct', name, key.slice(1), a.get(key), b.get(key));
    return entry('member', `${name}.${key}`, a.get(key), b.get(key));
  });
  return found.length > 0 ? found : [otherWords(name)];
}

/** The difference for texts with equal facts but different bytes. */
export function otherWords(where: string): Difference {
  const message = `${where}: the same facts in other words: edited by hand, or made by another version of domsched`;
  return { about: 'text', where, property: null, generated: null, extracted: null, message };
}

type ModuleExports = ReadonlyMap<string, Data>;

function parts(
  left: ModuleExports,
  right: ModuleExports,
  name: string,
  about: Difference['about'],
): Difference[] {
  const a = left.get(name);
  const b = right.get(name);
  if (!(a instanceof Map) || !(b instanceof Map)) return leaf(about, name, null, a, b);
  return [...new Set([...a.keys(), ...b.keys()])].flatMap((key) => entry(about, key, a.get(key), b.get(key)));
}

function kernelParts(left: ModuleExports, right: ModuleExports): Difference[] {
  return parts(left, right, '$kernel', 'kernel').map((found) =>
    found.where === 'source' || found.where === 'producer' ? { ...found, about: 'provenance' } : found,
  );
}

function entry(
  about: Difference['about'],
  where: string,
  a: Data | undefined,
  b: Data | undefined,
): Difference[] {
  if (!(a instanceof Map) || !(b instanceof Map)) {
    const gone = (data: Data | undefined): string | null =>
      data instanceof Map ? summary(data) : text(data);
    return leafText(about, where, null, gone(a), gone(b));
  }
  const found = [...new Set([...a.keys(), ...b.keys()])].flatMap((key) =>
    // The word of a bit field follows from its position and type, so report it only if nothing else differs.
    key === 'bits' ? [] : leaf(about, where, key, a.get(key), b.get(key)),
  );
  return found.length > 0 ? found : leaf(about, where, 'bits', a.get('bits'), b.get('bits'));
}

function leaf(
  about: Difference['about'],
  where: string,
  property: string | null,
  a: Data | undefined,
  b: Data | undefined,
): Difference[] {
  return leafText(about, where, property, text(a), text(b));
}

function leafText(
  about: Difference['about'],
  where: string,
  property: string | null,
  a: string | null,
  b: string | null,
): Difference[] {
  return a === b ? [] : [difference(about, where, property, a, b)];
}

function difference(
  about: Difference['about'],
  where: string,
  property: string | null,
  generated: string | null,
  extracted: string | null,
): Difference {
  const subject = property === null ? where : `${where}: ${property}`;
  const say = (value: string | null): string => value ?? 'nothing';
  return {
    about,
    where,
    property,
    generated,
    extracted,
    message: `${subject}: generated ${say(generated)}, file ${say(extracted)}`,
  };
}

function only(constants: ModuleExports): Map<string, Data> | undefined {
  const first = constants.values().next().value;
  return first instanceof Map ? first : undefined;
}

function summary(member: Map<string, Data>): string {
  const offset = member.get('offset');
  return offset === undefined ? 'there' : `${text(member.get('type'))} at ${text(offset)}`;
}

function text(data: Data | undefined): string | null {
  if (data === undefined) return null;
  if (data instanceof Map) return `{${[...data].map(([key, value]) => `${key}: ${text(value)}`).join(', ')}}`;
  if (Array.isArray(data)) return `[${data.map(text).join(', ')}]`;
  return typeof data === 'bigint' ? `0x${data.toString(16)}` : String(data);
}
