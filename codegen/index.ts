/**
 * Code generation: a {@link KernelLayout} in, TypeScript modules and the registry's entry out.
 *
 * Loading this module loads ts-morph (about a quarter of a second): import it when a command needs it.
 */
export { check } from './check.ts';
export type { Difference } from './compare.ts';
export { generate, type Written } from './generate.ts';
export { defaultPlace, type StorePlace } from './place.ts';
export { validateLayout } from './validate.ts';
