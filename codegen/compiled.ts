import { compiledKey } from '../runtime/layout/compiled.ts';
import { type Data, readModule } from './literals.ts';
import { propertyKey, stringLiteral } from './names.ts';

/**
 * A kernel's modules as one piece of data, for the compiled program and users of the package. Node takes most of a
 * second to find, read and link the 150 modules, and some milliseconds for this.
 */
export interface CompiledKernel {
  /** `index.js`. Its first line identifies the text that it was made from: see {@link compiledKey}. */
  readonly script: string;
  /** `index.d.ts`. */
  readonly types: string;
  /** Types of the structures, by the file of their module: `rq.<hash>.d.ts`. */
  readonly structures: ReadonlyMap<string, string>;
}

/**
 * @param index text of the kernel's `index.ts`
 * @param structure returns the text of a structure's module, given its file
 */
export function compileKernel(index: string, structure: (file: string) => string): CompiledKernel {
  const { constants, imports } = readModule(index);
  const layout = new Map<string, Data>();
  const structures = new Map<string, string>();
  const heads: string[] = [];
  const types: string[] = [];
  for (const [key, name] of constants.get('layout') as Map<string, string>) {
    const from = imports.get(name);
    if (from === undefined) {
      layout.set(key, constants.get(name)!);
      types.push(`readonly ${keyInType(key)}: ${typeText(constants.get(name)!)};`);
      continue;
    }
    const file = from.slice(from.lastIndexOf('/') + 1);
    const value = readModule(structure(file)).constants.get(name)!;
    layout.set(key, value);
    heads.push(`import type { ${name} } from '${from.replace(/ts$/, 'js')}';`);
    types.push(`readonly ${keyInType(key)}: typeof ${name};`);
    structures.set(file.replace(/ts$/, 'd.ts'), `export declare const ${name}: ${typeText(value)};\n`);
  }
  return {
    script: `${compiledKey(index)}\n${script(layout)}`,
    types: `${heads.join('\n')}\nexport declare const layout: {\n${types.map((line) => `  ${line}\n`).join('')}};\n`,
    structures,
  };
}

/** JSON has no 64-bit integers, so they are strings, in places where no other string occurs. */
function script(layout: ReadonlyMap<string, Data>): string {
  return [
    `export const layout = JSON.parse(${stringLiteral(JSON.stringify(plain(layout as Map<string, Data>)))});`,
    'const revive = (values) => {',
    "  for (const name of Object.keys(values)) if (typeof values[name] === 'string') values[name] = BigInt(values[name]);",
    '};',
    'revive(layout.$symbols);',
    'for (const { values } of Object.values(layout.$enums)) revive(values);',
    '',
  ].join('\n');
}

/** The same data for `JSON.stringify`. */
export function plain(data: Data): unknown {
  if (data instanceof Map) return Object.fromEntries([...data].map(([key, value]) => [key, plain(value)]));
  if (Array.isArray(data)) return data.map(plain);
  return typeof data === 'bigint' ? String(data) : data;
}

/** The type of a constant with exactly this value. */
function typeText(data: Data): string {
  if (data instanceof Map) {
    const members = [...data].map(([key, value]) => `readonly ${keyInType(key)}: ${typeText(value)};`);
    return members.length === 0 ? '{}' : `{ ${members.join(' ')} }`;
  }
  if (Array.isArray(data)) return `readonly [${data.map(typeText).join(', ')}]`;
  if (typeof data === 'string') return stringLiteral(data);
  return typeof data === 'bigint' ? `${data}n` : String(data);
}

/** In a type, `__proto__` is an ordinary name. */
function keyInType(key: string): string {
  return key === '__proto__' ? "'__proto__'" : propertyKey(key);
}
