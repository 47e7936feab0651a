/** What a live guest's memory says of its kernel, beside what the guest itself says, and a layout from elsewhere. */
import { createHash } from 'node:crypto';
import type { ExecutionContext } from 'ava';
import type { KernelSymbol } from '../../extractor/elf/kernel-file.ts';
import { MemoryKernel } from '../../extractor/memory/memory-kernel.ts';
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

/** All symbols of a kernel, in the order and form in which {@link shownSymbols} has them. */
interface AllSymbols {
  readonly count: number;
  readonly md5: string;
}

/** What the guest's own /proc/kallsyms shows, but for its modules. */
export async function shownSymbols(guest: LiveGuest): Promise<AllSymbols> {
  const shown = await guest.run("grep -v '\\[' /proc/kallsyms | cut -d' ' -f1,3 | tee /run/all | md5sum");
  const count = Number(await guest.run('wc -l < /run/all; rm /run/all'));
  return { count, md5: shown.slice(0, 32) };
}

/** What a kernel's tables say of one that was moved so far. */
export function symbolsOf(symbols: Iterable<KernelSymbol>, slide: bigint): AllSymbols {
  const hash = createHash('md5');
  let count = 0;
  for (const { name, address } of symbols) {
    hash.update(`${movedBy(address, slide).toString(16).padStart(16, '0')} ${name}\n`);
    count++;
  }
  return { count, md5: hash.digest('hex') };
}

/** Values that are no addresses, such as offsets in per-CPU areas, do not move. */
export function movedBy(address: bigint, slide: bigint): bigint {
  return address < KERNEL_MAP ? address : address + slide;
}

/** The kernel in a domain's memory, by its own tables. */
export async function memoryKernelOf(domain: Domain<FrameNumber>): Promise<MemoryKernel> {
  return MemoryKernel.open(await kernelMemory('web', await kernelImage(domain)));
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
