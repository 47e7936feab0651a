import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { projectDirectory } from './paths.ts';

const DebianKernelSchema = z.strictObject({
  id: z.string(),
  series: z.string(),
  flavour: z.enum(['cloud', 'amd64', 'rt']),
  /** Regular expression of the releases (`uname -r`) of this kernel; the archive's newest one is taken. */
  release: z.string(),
  /** Package names, with `{release}` for the release. */
  packages: z.strictObject({ image: z.string(), debug: z.string() }),
  /** Members of those packages, in tar's spelling. */
  files: z.strictObject({ vmlinux: z.string(), vmlinuz: z.string(), config: z.string() }),
  /** Facts that hold for every point release of this kernel. */
  expect: z.strictObject({
    scheduler: z.enum(['cfs', 'eevdf']),
    preemptRt: z.boolean(),
    dwarfVersion: z.number(),
  }),
  /** Whether `make test` uses it; `make kernels-all` fetches all. */
  default: z.boolean(),
});

/** One of Debian's kernels: a version series in one configuration, with any point release. */
export type DebianKernel = z.infer<typeof DebianKernelSchema>;

/** The kernels that `kernels/debian/*.json` describe, by id. */
export function debianKernels(directory = path.join(projectDirectory, 'kernels', 'debian')): DebianKernel[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => DebianKernelSchema.parse(JSON.parse(readFileSync(path.join(directory, name), 'utf8'))));
}

/** Whether a release (`uname -r`) is a point release of this kernel. */
export function isReleaseOf(kernel: DebianKernel, release: string): boolean {
  return new RegExp(kernel.release).test(release);
}

/** Fills a release into a package or file name of the manifest. */
export function forRelease(template: string, release: string): string {
  return template.replaceAll('{release}', release);
}
