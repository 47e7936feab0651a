import { writeFile } from 'node:fs/promises';
import { join, relative, resolve } from 'node:path';
import test from 'ava';
import { generate } from '../../codegen/index.ts';
import { compile } from './compile.ts';
import { temporaryFolder } from './folder.ts';
import { sampleLayout } from './sample.ts';

const ROOT = resolve(import.meta.dirname, '../..');

/** What the compiler must know of a kernel's layout; each line marked so must fail to compile. */
const USES = `
import { layout } from './6.1.0-test/index.ts';
import { registry } from './registry.ts';
import type { RegistryEntry } from '@runtime/registry.ts';
import { reader } from '@runtime/reader.ts';
import type { AnyLayout, MembersOf } from '@runtime/types.ts';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const yes = <T extends true>(): T => true as T;
const view = new DataView(new ArrayBuffer(256));

yes<Equal<typeof layout.rq.nr_running.offset, 0>>();
yes<Equal<typeof layout.rq.nr_running.size, 4>>();
yes<Equal<typeof layout.rq.nr_running.signed, false>>();
yes<Equal<typeof layout.rq.nr_running.type, 'unsigned int'>>();
yes<Equal<typeof layout.rq.curr.target, 'task_struct'>>();
yes<Equal<typeof layout.rq.load.dims, readonly [3]>>();
yes<Equal<typeof layout.rq.named.members.inner.offset, 52>>();
yes<Equal<typeof layout.$symbols.runqueues, 0x31980n>>();
yes<Equal<typeof layout.$kernel.buildId, '0123456789abcdef0123456789abcdef01234567'>>();
yes<Equal<Extract<keyof MembersOf<typeof layout.rq>, \`$\${string}\`>, never>>();
export const running: number = reader(layout.rq.nr_running)(view);
export const current: bigint = reader(layout.rq.curr)(view, 64);
export const low: number = reader(layout.rq.low)(view);
export const element: number = reader(layout.rq.load)(view, 2, 64);
export const flag: number = reader(layout.rq.flag)(view);
export const nested: number = reader(layout.cfs_rq.h_nr_running)(view, layout.rq.pairs.offset + layout.rq.pairs.element.size);
export const reserved: number = reader(layout.rq.class)(view) + reader(layout.class.h_nr_running)(view) + layout.class.$size;
export const entries: readonly RegistryEntry[] = registry;
export const any: AnyLayout = layout;

// @ts-expect-error this kernel has no such member
layout.rq.h_nr_queued;
// @ts-expect-error this kernel has no such structure
layout.prio_array;
// @ts-expect-error a structure is not read as one value
reader(layout.rq.cfs);
// @ts-expect-error an array is read by element
reader(layout.rq.load)(view);
// @ts-expect-error a 64-bit value is no number
export const wide: number = reader(layout.rq.whole)(view);
// @ts-expect-error layouts cannot be written
layout.rq.nr_running.offset = 4;
// @ts-expect-error this kernel has no such symbol
layout.$symbols.no_such_symbol;
`;

test('generated modules are strict-clean and know their members; an absent one does not compile', async (t) => {
  const outDir = await temporaryFolder(t);
  const layout = sampleLayout();
  layout.structs.class = { ...layout.structs.cfs_rq!, name: 'class', sourceName: 'class' };
  await generate(layout, { outDir });
  const uses = USES.replaceAll('@runtime', relative(outDir, join(ROOT, 'runtime/layout')));
  await writeFile(join(outDir, 'uses.ts'), uses);
  await compile(t, outDir);
});
