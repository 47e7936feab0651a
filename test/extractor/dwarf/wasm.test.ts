import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { scratchFolder } from '../fixture.ts';

const ROOT = join(import.meta.dirname, '../../..');
const BUILT = join(ROOT, 'dist/wasm');
const CACHE = join(ROOT, '.cache/wasm');

test('libdwarf.wasm builds to the same bytes again, with licence, source and all that it takes', (t) => {
  const again = scratchFolder(t);
  execFileSync(join(ROOT, 'extractor/dwarf/build.sh'), [again, CACHE], { stdio: 'pipe' });
  const sources = readdirSync(join(ROOT, 'extractor/dwarf/shim')).sort();
  const files = [
    'COPYING.libdwarf',
    'LGPL-2.1.txt',
    'SOURCE.txt',
    'build.sh',
    'config.h',
    'libdwarf.wasm',
    'shim',
    ...sources.map((name) => `shim/${name}`),
  ];
  t.deepEqual(readdirSync(again, { recursive: true }).sort(), files);
  for (const name of files.filter((name) => name !== 'shim'))
    t.deepEqual(readFileSync(join(again, name)), readFileSync(join(BUILT, name)), name);

  t.regex(
    readFileSync(join(BUILT, 'LGPL-2.1.txt'), 'latin1'),
    /GNU LESSER GENERAL PUBLIC LICENSE\s+Version 2\.1/,
  );
  const [archive] = readdirSync(CACHE).filter((name) => name.includes('.orig.tar.'));
  const sha256 = createHash('sha256')
    .update(readFileSync(join(CACHE, archive!)))
    .digest('hex');
  const source = readFileSync(join(BUILT, 'SOURCE.txt'), 'utf8');
  t.true(source.includes(archive!) && source.includes(sha256));
});
