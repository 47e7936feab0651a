import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { generate } from '../../../codegen/index.ts';
import type { KernelLayout } from '../../../extractor/contract.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import type { LayoutView } from '../../../runtime/layout/view.ts';
import { temporaryFolder } from '../../codegen/folder.ts';
import { sampleLayout } from '../../codegen/sample.ts';

/** A layout as the runtime gets it: generated, registered, loaded. */
export async function generated(
  t: ExecutionContext,
  layout: KernelLayout = sampleLayout(),
): Promise<LayoutView> {
  const outDir = await temporaryFolder(t);
  await generate(layout, { outDir });
  const [kernel] = await knownKernels([join(outDir, 'registry.ts')]);
  return kernel!.load();
}
