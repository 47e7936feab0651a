import type { KernelLayout } from './contract.ts';

/** Where modules go. */
interface ModulesPlace {
  readonly outDir: string;
}

/** Makes modules from a layout. The program passes its code generator to the command, since the extractor has none. */
export interface ModuleMaker {
  /** The place that this installation reads. */
  defaultPlace(): ModulesPlace;
  generate(
    layout: KernelLayout,
    place: ModulesPlace & { signal?: AbortSignal },
  ): Promise<{ readonly path: string }>;
  /** @returns differences between the present modules and those that would be made */
  check(
    layout: KernelLayout,
    place: ModulesPlace & { partial: boolean },
  ): Promise<readonly { readonly message: string }[]>;
}

/** Loads it, which takes a quarter of a second. */
export type LoadMaker = () => Promise<ModuleMaker>;
