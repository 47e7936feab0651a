/** Raw data: JSON lines, the setup first and then one sample each. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { execa } from 'execa';
import { replaceWhole } from '../../kernels/make-once.ts';
import { projectDirectory } from '../../kernels/paths.ts';
import { version } from '../../runtime/version.ts';
import { type Experiment, type Form, type RawSample, SETUP, type Setup } from './experiment.ts';

export interface RawData {
  readonly setup: Setup;
  readonly samples: readonly RawSample[];
}

/** Figures are kept to the resolution of the clocks that they come from: a file of a run is read by people too. */
const DIGITS = 6;

/** @throws SyntaxError, z.ZodError for what is no such file */
export function parseRaw(text: string): RawData {
  const [first, ...rest] = text.split('\n').filter((line) => line !== '');
  return {
    setup: SETUP.parse(JSON.parse(first ?? '')),
    samples: rest.map((line) => JSON.parse(line) as RawSample),
  };
}

export function formatRaw({ setup, samples }: RawData): string {
  const exact = (_key: string, value: unknown) =>
    typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(DIGITS)) : value;
  return `${[JSON.stringify(setup), ...samples.map((sample) => JSON.stringify(sample, exact))].join('\n')}\n`;
}

export async function readRaw(directory: string, name: string): Promise<RawData> {
  return parseRaw(await readFile(path.join(directory, `${name}.jsonl`), 'utf8'));
}

/** Runs an experiment and writes what it measured. @returns it as read back: what is judged is what was written */
export async function measureInto(
  directory: string,
  experiment: Experiment,
  form: Form,
  say: (text: string) => void,
): Promise<RawData> {
  const samples: RawSample[] = [];
  const begun = new Date().toISOString();
  const loadAtBegin = os.loadavg()[0]!;
  const used = await experiment.measure({ form, say, put: (sample) => samples.push(sample) });
  const [git, qemu] = await Promise.all([
    execa('git', ['rev-parse', '--short', 'HEAD'], { cwd: projectDirectory, reject: false }),
    execa('qemu-system-x86_64', ['--version']),
  ]);
  const setup: Setup = {
    experiment: experiment.name,
    form,
    begun,
    ended: new Date().toISOString(),
    commit: git.exitCode === 0 ? git.stdout : 'none',
    machine: {
      cpu: os.cpus()[0]?.model ?? 'unknown',
      cpus: os.cpus().length,
      memoryMiB: Math.round(os.totalmem() / 2 ** 20),
      kernel: os.release(),
    },
    load: [loadAtBegin, os.loadavg()[0]!],
    nice: os.getPriority(),
    versions: {
      domsched: version(),
      node: process.version,
      qemu: /version ([\d.]+)/.exec(qemu.stdout)?.[1] ?? 'unknown',
    },
    ...used,
  };
  await mkdir(directory, { recursive: true });
  const file = path.join(directory, `${experiment.name}.jsonl`);
  await replaceWhole(file, (fresh) => writeFile(fresh, formatRaw({ setup, samples })));
  return readRaw(directory, experiment.name);
}
