import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { type KnownKernel, knownKernels } from '../../runtime/layout/registry.ts';

/** A store with the layouts of the very kernels that a test boots: made from them, whatever is committed. */
export class TestLayouts implements AsyncDisposable {
  /** To be the program's XDG_DATA_HOME. */
  readonly dataHome: string;
  readonly known: readonly KnownKernel[];

  private constructor(dataHome: string, known: readonly KnownKernel[]) {
    this.dataHome = dataHome;
    this.known = known;
  }

  static async of(...kernelFiles: readonly string[]): Promise<TestLayouts> {
    const dataHome = await mkdtemp(path.join(tmpdir(), 'domsched-layouts-'));
    const store = path.join(dataHome, 'domsched', 'layouts');
    for (const file of kernelFiles) await domsched(['extract', file, '--out', store, '--quiet']);
    return new TestLayouts(dataHome, await knownKernels([path.join(store, 'registry.ts')]));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return rm(this.dataHome, { recursive: true, force: true });
  }
}

/** Runs the program from its sources. @throws execa's error when it fails */
export function domsched(
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; reject?: boolean } = {},
) {
  return execa(process.execPath, [path.join(projectDirectory, 'domsched.ts'), ...args], {
    ...options,
    timeout: 120_000,
  });
}
