/**
 * `make experiments`: the experiments of the paper's section 5. Writes raw data, pictures and a report to
 * `.cache/experiments/`, prints a verdict for each claim.
 *
 * - `ONLY=table1,fig8` takes some of them;
 * - `DOMSCHED_EXPERIMENTS=full` repeats until intervals are narrow, `glance` only shows that all of it works;
 * - `DOMSCHED_EXPERIMENTS_DIR` is another place than `.cache/experiments`;
 * - `KEEP=1` takes what was measured into `docs/experiments/` and makes `docs/experiments.md` again.
 *
 * `node test/experiments/run.ts --draw` measures nothing and makes the document again from the data that is kept.
 */
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { projectDirectory } from '../../kernels/paths.ts';
import { EXPERIMENTS } from './catalogue.ts';
import { type Chapter, chapterOf, documentOf, verdictLine } from './document.ts';
import { type Experiment, FORMS, type Form } from './experiment.ts';
import { goFirst } from './go-first.ts';
import { measureInto, readRaw } from './raw.ts';

const scratch = process.env.DOMSCHED_EXPERIMENTS_DIR ?? path.join(projectDirectory, '.cache', 'experiments');
const kept = path.join(projectDirectory, 'docs', 'experiments');
const introduction = path.join(import.meta.dirname, 'introduction.md');

/** Machines, daemon and measurement inherit it: other work of the host waits for them, and they for each other. */
const NICE = -10;

// Machines are ended as this process exits, which a signal alone does not make it do.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

const { values } = parseArgs({ options: { draw: { type: 'boolean', default: false } } });
const experiments = chosen(process.env.ONLY);
const form = formOf(process.env.DOMSCHED_EXPERIMENTS);
if (values.draw) await drawKept();
else if (experiments instanceof RangeError) refuse(experiments);
else if (form instanceof RangeError) refuse(form);
else await run(experiments, form, process.env.KEEP === '1');

function refuse({ message }: RangeError): void {
  console.error(message);
  process.exitCode = 2;
}

async function run(list: readonly Experiment[], how: Form, keep: boolean): Promise<void> {
  try {
    goFirst(NICE);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    console.log('# other work of the host is not kept away: only root may do that');
  }
  const chapters: Chapter[] = [];
  for (const experiment of list) {
    console.log(`${experiment.title}: ${how}, about ${experiment.takes[how]}`);
    const say = (text: string) => console.log(`# ${experiment.name}: ${text}`);
    const raw = await measureInto(scratch, experiment, how, say);
    const chapter = chapterOf(experiment, raw);
    chapters.push(chapter);
    for (const verdict of chapter.findings.verdicts) console.log(verdictLine(verdict));
    if (keep) {
      await mkdir(kept, { recursive: true });
      await copyFile(
        path.join(scratch, `${experiment.name}.jsonl`),
        path.join(kept, `${experiment.name}.jsonl`),
      );
    }
  }
  await write(chapters, scratch, path.join(scratch, 'report.md'), '.');
  console.log(`The report: ${path.join(scratch, 'report.md')}`);
  if (keep) await drawKept();
}

/** The document in docs/, of all data that is kept there. */
async function drawKept(): Promise<void> {
  const there = EXPERIMENTS.filter(({ name }) => existsSync(path.join(kept, `${name}.jsonl`)));
  const chapters = await Promise.all(
    there.map(async (experiment) => chapterOf(experiment, await readRaw(kept, experiment.name))),
  );
  await write(chapters, kept, path.join(projectDirectory, 'docs', 'experiments.md'), 'experiments');
}

async function write(
  chapters: readonly Chapter[],
  pictures: string,
  document: string,
  folder: string,
): Promise<void> {
  // It takes long to load, and is not needed by whoever is told of a wrong name.
  const { draw } = await import('./draw.ts');
  for (const { findings } of chapters)
    for (const { name, spec } of findings.pictures)
      await writeFile(path.join(pictures, `${name}.svg`), await draw(spec));
  await writeFile(document, documentOf(chapters, await readFile(introduction, 'utf8'), folder));
}

/** @returns an error for a name that no experiment has */
function chosen(only: string | undefined): readonly Experiment[] | RangeError {
  if (only === undefined || only === '') return EXPERIMENTS;
  const names = only.split(',');
  const unknown = names.find((name) => !EXPERIMENTS.some((experiment) => experiment.name === name));
  if (unknown === undefined) return EXPERIMENTS.filter(({ name }) => names.includes(name));
  return new RangeError(
    `no experiment ${unknown}: there are ${EXPERIMENTS.map(({ name }) => name).join(', ')}`,
  );
}

/** @returns an error for a form that there is not */
function formOf(name: string | undefined): Form | RangeError {
  const form = FORMS.find((known) => known === (name || 'short'));
  return form ?? new RangeError(`DOMSCHED_EXPERIMENTS is ${FORMS.join(', ')}, not ${name}`);
}
