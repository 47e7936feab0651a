import { createHash } from 'node:crypto';

/**
 * The only place where names from a kernel become names, keys, strings, comments or paths of a TypeScript program. It
 * assumes hostile input: GCC allows `$` and any alphabet in names, Rust has types such as `Option<&str>`, and an
 * untrusted file may have any text as a name.
 */

/** Names that are usable as bindings and files unchanged; file names are limited to 255 bytes. */
const PLAIN = /^[A-Za-z_][A-Za-z0-9_]{0,99}$/;

/** Linker symbols: C identifiers plus compiler suffixes such as `.isra.0`, `.cold`, `@@VERSION`. */
export const SYMBOL_NAME = /^[A-Za-z_.$][A-Za-z0-9_.$@]{0,511}$/;

/** `uname -r`: one path segment, never hidden, never `..`. */
export const RELEASE = /^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$/;

/** Names of the store itself, which no kernel's folder may take. */
const RESERVED_FOLDERS = /^(?:registry\.(?:ts|js|d\.ts)|structs|node_modules|package\.json)$/i;

/** Words that a strict ES module cannot bind, and globals that generated code uses. */
const RESERVED_WORDS = new Set(
  (
    'arguments await break case catch class const continue debugger default delete do else enum eval export ' +
    'extends false finally for function if implements import in instanceof interface let new null package ' +
    'private protected public return static super switch this throw true try typeof undefined var void while ' +
    'with yield as any async boolean declare module namespace number object string symbol type unknown ' +
    'NaN Infinity globalThis __esModule layout'
  ).split(' '),
);

/** Whether a release string can be the name of a folder in a layout store. */
export function isFolderName(name: string): boolean {
  return RELEASE.test(name) && !RESERVED_FOLDERS.test(name);
}

/** Exported name of a structure's module. `$` distinguishes it from every plain name. */
export function bindingName(structure: string): string {
  if (!PLAIN.test(structure)) return `$${readable(structure)}_${digest(structure)}`;
  return RESERVED_WORDS.has(structure) ? `$${structure}` : structure;
}

/** File of a structure's module, without extension. `-` distinguishes it from every plain name. */
export function moduleName(structure: string): string {
  return PLAIN.test(structure) ? structure : `${readable(structure)}-${digest(structure)}`;
}

/** The recognizable part of a name that is not plain; a digest distinguishes names that then look equal. */
function readable(name: string): string {
  return name.replace(/[^A-Za-z0-9]+/g, '_').slice(0, 60);
}

function digest(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, 16);
}

/**
 * Key of an object literal. `__proto__: x` would set the prototype and not a property, so that key is computed; any key
 * that is no identifier is quoted.
 */
export function propertyKey(name: string): string {
  if (name === '__proto__') return "['__proto__']";
  return /^[A-Za-z_$][A-Za-z0-9_$]*$/.test(name) ? name : stringLiteral(name);
}

/** A single-quoted literal in printable ASCII. */
export function stringLiteral(text: string): string {
  let out = "'";
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit === 0x27 || unit === 0x5c) out += `\\${text[i]}`;
    else if (unit >= 0x20 && unit < 0x7f) out += text[i];
    else out += `\\u${unit.toString(16).padStart(4, '0')}`;
  }
  return `${out}'`;
}

/** Text of a line comment: one line of printable ASCII. */
export function commentText(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 1024);
}

/** A bigint is printed as a hexadecimal literal. */
export type Literal =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly Literal[]
  | { readonly [key: string]: Literal | undefined };

/** An expression for plain data; undefined properties are left out. */
export function literal(value: Literal): string {
  if (typeof value === 'string') return stringLiteral(value);
  if (typeof value === 'bigint')
    return value < 0n ? `-0x${(-value).toString(16)}n` : `0x${value.toString(16)}n`;
  if (value === null || typeof value !== 'object') return String(value);
  if (Array.isArray(value)) return `[${value.map((item) => literal(item as Literal)).join(', ')}]`;
  const properties = Object.entries(value as { readonly [key: string]: Literal | undefined });
  const printed = properties
    .filter((property): property is [string, Literal] => property[1] !== undefined)
    .map(([key, item]) => `${propertyKey(key)}: ${literal(item)}`);
  return printed.length === 0 ? '{}' : `{ ${printed.join(', ')} }`;
}
