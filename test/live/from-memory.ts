/** What a live guest's memory says of its kernel, beside what the guest itself says, and a layout from elsewhere. */
import { createHash } from 'node:crypto';
import type { ExecutionContext } from 'ava';
import { MemoryKernel } from '../../extractor/memory/memory-kernel.ts';
import type { Guest } from '../../runtime/guest/guest.ts';
import { kernelMemory } from '../../runtime/guest/identify/from-memory.ts';
import { kernelImage } from '../../runtime/guest/identify/identify.ts';
import { KERNEL_MAP } from '../../runtime/guest/identify/regions.ts';
import type { FrameNumber } from '../../runtime/hypervisor/frame.ts';
import type { Domain } from '../../runtime/hypervisor/types.ts';
import type { LayoutView } from '../../runtime/layout/view.ts';
import type { SymbolName } from '../../runtime/members/symbols.ts';
import type { LiveGuest } from './guest.ts';

/** Of each structure its members with what a reader needs of them. */
function members(layout: LayoutView, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    names.map((name) => {
      const struct = layout.requireStruct(name);
      const facts = [...struct.members].map(
        ([member, { offset, size, kind, bitOffset, bitSize, target }]) => [
          member,
          { offset, size, kind, bitOffset, bitSize, target },
        ],
      );
      return [name, { size: struct.size, members: Object.fromEntries(facts) }];
    }),
  );
}

/**
 * Symbols: all that the guest's own /proc/kallsyms shows, by name and address, wherever the kernel was moved to.
 * @returns how many
 */
export async function sameSymbols(
  t: ExecutionContext,
  guest: LiveGuest,
  domain: Domain<FrameNumber>,
  { kernel: { slide } }: Guest,
): Promise<number> {
  const kernel = await MemoryKernel.open(await kernelMemory('web', await kernelImage(domain)));
  const hash = createHash('md5');
  let count = 0;
  for (const { name, address } of kernel.symbols()) {
    const running = address < KERNEL_MAP ? address : address + slide;
    hash.update(`${running.toString(16).padStart(16, '0')} ${name}\n`);
    count++;
  }
  const shown = await guest.run("grep -v '\\[' /proc/kallsyms | cut -d' ' -f1,3 | tee /run/all | md5sum");
  t.is(shown.slice(0, 32), hash.digest('hex'));
  t.is(Number(await guest.run('wc -l < /run/all; rm /run/all')), count);
  return count;
}

/** Symbols that we use, and members of all structures that we use, are those of another layout of the same build. */
export function sameLayout(t: ExecutionContext, layout: LayoutView, other: LayoutView): void {
  for (const name of other.symbolNames as SymbolName[]) t.is(layout.symbol(name), other.symbol(name), name);
  for (const name of other.symbolNames) t.is(layout.isPerCpu(name), other.isPerCpu(name), name);
  const names = other.structNames.filter((name) => layout.has(name));
  t.true(names.length > 100, `${names.length} structures compared`);
  t.deepEqual(members(layout, names), members(other, names));
  t.deepEqual(
    other.structNames.filter((name) => !layout.has(name)),
    [],
  );
}
