import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { KernelsError } from './error.ts';
import { debianKernels } from './manifest.ts';
import { kernelCache } from './paths.ts';

const PackageSchema = z.strictObject({
  name: z.string(),
  version: z.string(),
  /** Of the .deb, from apt's signed index. */
  sha256: z.string(),
});

const ProvenanceSchema = z.strictObject({
  /** Manifest id, e.g. `debian-6.1-cloud`. */
  kernel: z.string(),
  /** `uname -r`. */
  release: z.string(),
  packages: z.strictObject({ image: PackageSchema, debug: PackageSchema }),
  /** Size and SHA-256 of the files taken from the packages, by file name. */
  files: z.record(z.string(), z.strictObject({ size: z.number(), sha256: z.string() })),
});

export type Package = z.infer<typeof PackageSchema>;
export type Provenance = z.infer<typeof ProvenanceSchema>;

/** A kernel on disk. All paths are absolute. */
export interface CachedKernel {
  id: string;
  release: string;
  directory: string;
  /** Uncompressed ELF with DWARF. */
  vmlinux: string;
  /** The packed image that boots. */
  vmlinuz: string;
  /** The kernel's `.config`. */
  config: string;
  provenance: Provenance;
}

/** The kernels in the cache, newest point release last for each id. Incomplete folders are skipped. */
export function cachedKernels(directory = kernelCache): CachedKernel[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .map((release) => cachedKernel(release, directory))
    .filter((kernel) => kernel !== null)
    .sort(
      (a, b) =>
        a.id.localeCompare(b.id, 'en', { numeric: true }) ||
        a.release.localeCompare(b.release, 'en', { numeric: true }),
    );
}

/** The kernel of one release, or null if it is missing or incomplete. */
export function cachedKernel(release: string, directory = kernelCache): CachedKernel | null {
  const folder = path.join(directory, release);
  const kernel = {
    directory: folder,
    vmlinux: path.join(folder, `vmlinux-${release}`),
    vmlinuz: path.join(folder, `vmlinuz-${release}`),
    config: path.join(folder, `config-${release}`),
  };
  const provenanceFile = path.join(folder, 'provenance.json');
  if (![provenanceFile, kernel.vmlinux, kernel.vmlinuz, kernel.config].every((file) => existsSync(file))) {
    return null;
  }
  const parsed = ProvenanceSchema.safeParse(JSON.parse(readFileSync(provenanceFile, 'utf8')));
  if (!parsed.success || parsed.data.release !== release) return null;
  return { id: parsed.data.kernel, release, ...kernel, provenance: parsed.data };
}

/**
 * The newest cached point release of a kernel, by manifest id such as `debian-6.1-cloud`.
 * @throws KernelsError `kernel-absent`
 */
export function requireKernel(id: string, directory = kernelCache): CachedKernel {
  const kernel = cachedKernels(directory).findLast((candidate) => candidate.id === id);
  if (kernel) return kernel;
  const target = debianKernels().find((known) => known.id === id)?.default ? 'kernels-debian' : 'kernels-all';
  throw new KernelsError('kernel-absent', `${id} is not in ${directory}: run \`make ${target}\``, {
    id,
    directory,
  });
}
