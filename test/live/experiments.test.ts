/** The thinnest experiment, at a glance, by the command that `make experiments` runs. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { parseRaw } from '../experiments/raw.ts';

test('an experiment writes raw data, a picture and a report, and prints its verdicts', async (t) => {
  t.timeout(600_000);
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-experiments-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const makefile = await readFile(path.join(projectDirectory, 'Makefile'), 'utf8');
  const recipe = /^experiments:.*\n(?:\t@.*\n)*\t(.+)$/m.exec(makefile)![1]!;
  const env = {
    ONLY: 'off-cpu',
    DOMSCHED_EXPERIMENTS: 'glance',
    DOMSCHED_EXPERIMENTS_DIR: directory,
    KEEP: '',
  };
  const { stdout } = await execa({ shell: true, cwd: projectDirectory, env, preferLocal: true })`${recipe}`;
  t.regex(stdout, /^- \*\*met\*\*: Each hold .*(TCG|KVM)/m);
  const { setup, samples } = parseRaw(await readFile(path.join(directory, 'off-cpu.jsonl'), 'utf8'));
  t.like(setup, { experiment: 'off-cpu', form: 'glance' });
  t.true(samples.length >= 12);
  t.true(samples.every(({ isOff }) => isOff === true));
  t.regex(await readFile(path.join(directory, 'off-cpu.svg'), 'utf8'), /^<svg /);
  t.regex(await readFile(path.join(directory, 'report.md'), 'utf8'), /!\[.*\]\(\.\/off-cpu\.svg\)/);
});
