import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import test from 'ava';
import fc from 'fast-check';
import { generate } from '../../codegen/index.ts';
import type { KernelLayout } from '../../extractor/contract.ts';
import { ownKey } from '../../runtime/layout/module.ts';
import { type Reader, reader } from '../../runtime/layout/reader.ts';
import type { MemberLayout } from '../../runtime/layout/types.ts';
import { compile } from './compile.ts';
import { temporaryFolder } from './folder.ts';
import { int, sampleLayout } from './sample.ts';

/** Names as C, GCC, Rust and nobody would write them; those of one line look the same once made plain. */
const NAMES = [
  ...['a b', 'a-b', 'a::b', 'a  b', 'größe', 'grüße', 'A b'],
  ...[
    'core::option::Option<u32>',
    '&str',
    '&mut dyn core::fmt::Write',
    '{impl#0}',
    '(u8, &str)',
    '*const str',
  ],
  ...['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'then'],
  ...['$size', '$name', '.$size', '$kernel', '$symbols', '$kernel_1', 'value$'],
  ...['class', 'layout', 'Number', 'BigInt', 'DataView', 'globalThis', '__esModule', 'arrayIndex', 'Object'],
  ...['index', 'kernel', 'array-index', 'view', 'at', 'width', 'require', 'exports', 'registry', 'undefined'],
  ...[
    "'",
    '"',
    '`',
    '\\',
    "\\'",
    `$\{process.exit(1)}`,
    '*/',
    '//',
    '\n',
    '\r\n// y',
    '\u2028',
    '\0',
    '\ud800',
  ],
  ...['', ' ', '.', '..', '../../etc/passwd', '1digit', '名前', '\u202e', 'x'.repeat(5000), 'y'.repeat(200)],
];

/** Every name as a structure whose members have every name, each of them a number of its own. */
function layoutOf(names: readonly string[]): KernelLayout {
  const members = names.map((name, index) => int(name, index * 4, 4, false));
  const entries = names.map((name) => [
    name,
    { name, sourceName: name, kind: 'struct' as const, size: names.length * 4, members },
  ]);
  const enums = names.map((name) => [
    name,
    { size: 4, values: Object.fromEntries(names.map((value, index) => [value, index])) },
  ]);
  return { ...sampleLayout(), structs: Object.fromEntries(entries), enums: Object.fromEntries(enums) };
}

test('whatever the names: the modules compile, and every member reads its own value', async (t) => {
  const random = fc.sample(fc.string({ unit: 'binary', maxLength: 12 }), { numRuns: 12, seed: 2616 });
  const names = [...new Set([...NAMES, ...random])];
  const folder = await temporaryFolder(t);
  const [outDir, compiledDir] = [join(folder, 'ts'), join(folder, 'js')];
  // As it comes from a file: own keys, whatever they are called.
  const given = JSON.parse(JSON.stringify(layoutOf(names)));
  const written = await generate(given, { outDir, compiledDir });
  const files = await readdir(join(outDir, 'structs'));
  t.is(new Set(files.map((name) => name.toLowerCase())).size, names.length);

  const view = new DataView(new ArrayBuffer(names.length * 4));
  for (const index of names.keys()) view.setUint32(index * 4, index * 7 + 1, true);
  for (const path of [join(written.path, 'index.ts'), join(compiledDir, written.folder, 'index.js')]) {
    const { layout } = await import(pathToFileURL(path).href);
    for (const structure of names) {
      const found = layout[ownKey(structure)];
      t.is(found.$name, structure);
      t.is(found.$size, names.length * 4);
      t.deepEqual(
        names.map((name) => (reader as (member: MemberLayout) => Reader)(found[ownKey(name)])(view)),
        names.map((_, index) => index * 7 + 1),
        structure,
      );
      const { values } = layout.$enums[structure];
      t.deepEqual(
        names.map((name) => values[name]),
        [...names.keys()],
      );
    }
  }

  await compile(t, outDir);
});
