import type { KernelLayout } from './contract.ts';

/** Where modules go. */
interface ModulesPlace {
  readonly outDir: string;
}

/** Makes modules of a layout: the program hands its code generator to the command, and the extractor knows none. */
export interface ModuleMaker {
  /** The place that this installation reads. */
  defaultPlace(): ModulesPlace;
  generate(
    layout: KernelLayout,
    place: ModulesPlace & { signal?: AbortSignal },
  ): Promise<{ readonly path: string }>;
  /** @returns how the modules that are there differ from those that would be made */
  check(
    layout: KernelLayout,
    place: ModulesPlace & { partial: boolean },
  ): Promise<readonly { readonly message: string }[]>;
}

/** Loads it: that takes a quarter of a second. */
export type LoadMaker = () => Promise<ModuleMaker>;
