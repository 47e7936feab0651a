import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout: this file is in `kernels/`, or in `dist/kernels/` once compiled. */
export const projectDirectory = path.resolve(
  fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? '..' : '../..', import.meta.url)),
);

/** Folder of fetched kernels, one folder per release. Ignored by git. */
export const kernelCache = path.join(projectDirectory, '.cache', 'kernels');

/** Folder of generated and committed layouts: one folder per release, and `structs/`. */
export const generatedDirectory = path.join(projectDirectory, 'generated');
