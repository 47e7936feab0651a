import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { EXPERIMENTS } from './catalogue.ts';
import { chapterOf, documentOf } from './document.ts';
import { draw } from './draw.ts';
import { readRaw } from './raw.ts';

const docs = path.join(projectDirectory, 'docs');
const kept = path.join(docs, 'experiments');
const files = readdirSync(kept);
const experiments = EXPERIMENTS.filter(({ name }) => files.includes(`${name}.jsonl`));
const introduction = readFileSync(path.join(import.meta.dirname, 'introduction.md'), 'utf8');

test('docs/experiments.md and its pictures are what the program makes of the data beside them', async (t) => {
  t.deepEqual(
    files.filter((file) => file.endsWith('.jsonl')).sort(),
    experiments.map(({ name }) => `${name}.jsonl`).sort(),
  );
  const chapters = await Promise.all(
    experiments.map(async (experiment) => chapterOf(experiment, await readRaw(kept, experiment.name))),
  );
  t.is(
    readFileSync(path.join(docs, 'experiments.md'), 'utf8'),
    documentOf(chapters, introduction, 'experiments'),
  );
  const pictures = chapters.flatMap(({ findings }) => findings.pictures);
  for (const { name, spec } of pictures)
    t.is(readFileSync(path.join(kept, `${name}.svg`), 'utf8'), await draw(spec), name);
  t.deepEqual(
    files.filter((file) => file.endsWith('.svg')).sort(),
    pictures.map(({ name }) => `${name}.svg`).sort(),
  );
});

test('every verdict says by what the guests ran, and no name is of two experiments', (t) => {
  t.is(new Set(EXPERIMENTS.map(({ name }) => name)).size, EXPERIMENTS.length);
  const text = readFileSync(path.join(docs, 'experiments.md'), 'utf8');
  const verdicts = text.match(/^- \*\*(met|missed|cannot be told here)\*\*: .*$/gm) ?? [];
  t.true(verdicts.length >= experiments.length);
  for (const verdict of verdicts) t.regex(verdict, /TCG|KVM/);
});

test('an experiment or a form that there is not is told with those that there are', async (t) => {
  const run = (env: NodeJS.ProcessEnv) =>
    execa(process.execPath, [path.join(import.meta.dirname, 'run.ts')], { env, reject: false });
  const [unknown, form] = await Promise.all([run({ ONLY: 'fig99' }), run({ DOMSCHED_EXPERIMENTS: 'long' })]);
  t.is(unknown.exitCode, 2);
  t.regex(unknown.stderr, /no experiment fig99: there are table1, /);
  t.is(form.exitCode, 2);
  t.regex(form.stderr, /glance, short, full, not long/);
});
