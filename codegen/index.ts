/**
 * Code generation: turns a {@link KernelLayout} into TypeScript modules and an entry of the registry.
 *
 * Importing this module loads ts-morph (about a quarter of a second), so import it only when a command needs it.
 */
export { check } from './check.ts';
export type { Difference } from './compare.ts';
export { generate, type Written } from './generate.ts';
export { defaultPlace, type StorePlace } from './place.ts';
export { validateLayout } from './validate.ts';
