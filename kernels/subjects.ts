import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { cachedKernels } from './cache.ts';
import { type MeasuredFacts, readFacts } from './facts.ts';
import { type DebianKernel, debianKernels } from './manifest.ts';
import { projectDirectory } from './paths.ts';

/** A kernel on this machine whose layout can be checked. */
export interface Subject {
  /** `debian-6.1-cloud`, `o1-base`. */
  id: string;
  /** ELF with debug information. */
  file: string;
  /** Its `.config`. */
  config: string;
  /** Layouts that other tools measured on a kernel with the same configuration; null if there are none. */
  facts: MeasuredFacts | null;
  /** What the manifest promises; null for kernels of our own. */
  debian: DebianKernel | null;
}

/** The kernels on this machine: the current point release of each of Debian's, and the O(1) guest's variants. */
export function subjects(): Subject[] {
  return [...debianSubjects(), ...o1Subjects()];
}

function debianSubjects(): Subject[] {
  const cached = cachedKernels();
  return debianKernels().flatMap((debian) => {
    const kernel = cached.findLast(({ id }) => id === debian.id);
    return kernel
      ? [{ id: debian.id, file: kernel.vmlinux, config: kernel.config, facts: null, debian }]
      : [];
  });
}

function o1Subjects(): Subject[] {
  const build = path.join(projectDirectory, 'kernels', 'o1', 'build');
  if (!existsSync(build)) return [];
  return readdirSync(build)
    .sort()
    .flatMap((variant) => {
      const file = path.join(build, variant, 'vmlinux-2.6.16.33');
      if (!existsSync(file)) return [];
      // A variant may be a configuration rebuilt with another version of DWARF.
      const configuration = variant.replace(/-dwarf\d$/, '');
      const config = path.join(projectDirectory, 'kernels', 'o1', 'configs', configuration, 'config');
      // A variant without a configuration is another variant with programs of its own, and has the same structures.
      if (!existsSync(config)) return [];
      return [{ id: `o1-${variant}`, file, config, facts: readFacts(configuration), debian: null }];
    });
}
