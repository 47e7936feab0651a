import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { projectDirectory } from '../../kernels/paths.ts';

const OURS = ['extractor', 'codegen', 'runtime', 'kernels', 'test'];

test('docs/security.md names files that there are, and tests for every promise', (t) => {
  const text = readFileSync(path.join(projectDirectory, 'docs/security.md'), 'utf8');
  const files = OURS.flatMap((folder) =>
    readdirSync(path.join(projectDirectory, folder), { recursive: true, encoding: 'utf8' }).map(
      (file) => `/${folder}/${file}`,
    ),
  );
  const rows = text.split('\n').filter((line) => line.startsWith('| ') && !/^\| (promise|---)/.test(line));
  t.true(rows.length > 20);
  for (const row of rows) {
    const [, mechanism, proof] = row.split(/(?<!\\)\|/).slice(1, -1);
    for (const cell of [mechanism!, proof!]) {
      const named = [...cell.matchAll(/`([\w./-]+(?:\.ts|\.md|\.service|\/))`/g)].map(([, file]) => file!);
      t.true(named.length > 0, row);
      for (const file of named) {
        const found = file.endsWith('/')
          ? existsSync(path.join(projectDirectory, file))
          : existsSync(path.join(projectDirectory, file)) || files.some((ours) => ours.endsWith(`/${file}`));
        t.true(found, `${file} in: ${row}`);
      }
    }
    t.regex(proof!, /\.test\.ts|every-edit\.ts/, row);
  }
});
