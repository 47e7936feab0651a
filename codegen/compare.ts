import { type Data, readLiterals } from './literals.ts';

/** One fact on which `generated/` and an extraction disagree. */
export interface Difference {
  /**
   * What kind of fact: of the kernel's build, of where the layout was read from, of one of its parts; or `text`,
   * where all facts agree and the bytes do not.
   */
  about: 'kernel' | 'provenance' | 'struct' | 'member' | 'symbol' | 'constant' | 'enum' | 'registry' | 'text';
  /** Its name: `rq.nr_running`, `runqueues`. */
  where: string;
  /** The differing property of it, e.g. `offset`; null where all of it is on one side only. */
  property: string | null;
  /** As text; null for what is not there. */
  generated: string | null;
  extracted: string | null;
  /** One line for a person. */
  message: string;
}

/** A module's text after the comment that opens it, whose facts `kernel.ts` holds too. */
export function withoutHeader(text: string): string {
  return text.replace(/^(?:\/\/.*\n)+/, '');
}

/** Facts of both texts of one module that differ. `file` is its name in the kernel's folder. */
export function compareModules(
  file: string,
  generated: string | null,
  extracted: string | null,
): Difference[] {
  if (generated === extracted) return [];
  const name = file.replace(/\.ts$/, '');
  const left = generated === null ? null : readLiterals(generated);
  const right = extracted === null ? null : readLiterals(extracted);
  const found =
    name === 'symbols'
      ? [...parts(left, right, '$symbols', 'symbol'), ...parts(left, right, '$percpu', 'symbol')]
      : name === 'constants'
        ? parts(left, right, '$constants', 'constant')
        : name === 'enums'
          ? parts(left, right, '$enums', 'enum')
          : name === 'kernel'
            ? kernelParts(left, right)
            : name === 'index' || name === 'array-index'
              ? []
              : structure(name, left, right);
  if (found.length > 0) return found;
  if (name === 'index' && (generated === null || extracted === null)) return [];
  return [
    {
      about: 'text',
      where: file,
      property: null,
      generated: null,
      extracted: null,
      message:
        generated === null
          ? `${file}: not there`
          : extracted === null
            ? `${file}: no longer made`
            : `${file}: the same facts in other words: edited by hand, or made by another version of domsched`,
    },
  ];
}

type Exports = Map<string, Data> | null;

function structure(file: string, left: Exports, right: Exports): Difference[] {
  const a = only(left);
  const b = only(right);
  const name = text(a?.get('$name') ?? b?.get('$name')) ?? file;
  if (!a || !b) return [difference('struct', name, null, a ? 'there' : null, b ? 'there' : null)];
  return [...new Set([...a.keys(), ...b.keys()])].flatMap((key) => {
    if (key.startsWith('$')) return leaf('struct', name, key.slice(1), a.get(key), b.get(key));
    return entry('member', `${name}.${key}`, a.get(key), b.get(key));
  });
}

function parts(left: Exports, right: Exports, name: string, about: Difference['about']): Difference[] {
  const a = left?.get(name);
  const b = right?.get(name);
  if (!(a instanceof Map) || !(b instanceof Map)) return leaf(about, name, null, a, b);
  return [...new Set([...a.keys(), ...b.keys()])].flatMap((key) => entry(about, key, a.get(key), b.get(key)));
}

function kernelParts(left: Exports, right: Exports): Difference[] {
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
    // What reads a member follows from its offset and type; it is worth a line only by itself.
    key === 'read' || key === 'at' || key === 'bits' ? [] : leaf(about, where, key, a.get(key), b.get(key)),
  );
  if (found.length > 0) return found;
  return ['bits', 'at', 'read'].flatMap((key) => leaf(about, where, key, a.get(key), b.get(key)));
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

function only(exports: Exports): Map<string, Data> | null {
  const first = exports?.values().next().value;
  return first instanceof Map ? first : null;
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
