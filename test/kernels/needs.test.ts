import { readFileSync } from 'node:fs';
import test from 'ava';
import { STRUCTURES, SYMBOLS } from '../../extractor/needs.ts';
import { requestFor } from '../../extractor/structures.ts';
import { needsFile, needsText } from '../../kernels/needs.ts';

test('what an extraction asks for is what the runtime declares that it reads', (t) => {
  t.is(readFileSync(needsFile, 'utf8'), needsText(), 'write it again with: npm run needs');
});

test('a scheduler’s request has every structure in all spellings, and what is named besides', (t) => {
  const { structs, required } = requestFor({ kind: 'named', names: ['cgroup_root'], scheduler: true });
  t.true(STRUCTURES.every((name) => structs.includes(name)));
  t.true(structs.includes('runqueue') && structs.includes('cgroup_root'));
  t.deepEqual([...required].sort(), ['cgroup_root', 'rq', 'task_struct']);
  t.is(new Set(SYMBOLS).size, SYMBOLS.length);
});
