import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import test from 'ava';
import { writeText } from '../../extractor/output.ts';
import { scratchFolder } from './fixture.ts';

test('what a killed process of the same number left is not in the way', async (t) => {
  const folder = scratchFolder(t);
  const left = `.out.json.${process.pid}.tmp`;
  writeFileSync(join(folder, left), 'half');
  await writeText(join(folder, 'out.json'), 'whole');
  t.is(readFileSync(join(folder, 'out.json'), 'utf8'), 'whole');
  t.deepEqual(readdirSync(folder).sort(), [left, 'out.json']);
});
