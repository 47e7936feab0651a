/**
 * A guest whose kernel no layout is known of: everything comes from its own memory, and is what the guest itself and its
 * debug package say.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import type { KernelLayout } from '../../extractor/contract.ts';
import { MemoryKernel } from '../../extractor/memory/memory-kernel.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { kernelMemory } from '../../runtime/guest/identify/from-memory.ts';
import { kernelImage } from '../../runtime/guest/identify/identify.ts';
import { KERNEL_MAP } from '../../runtime/guest/identify/regions.ts';
import type { FrameNumber } from '../../runtime/hypervisor/frame.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import type { Domain } from '../../runtime/hypervisor/types.ts';
import type { LayoutView } from '../../runtime/layout/view.ts';
import type { SymbolName } from '../../runtime/members/symbols.ts';
import { layoutOf } from '../real-kernels.ts';
import { bootDebian } from './guest.ts';
import { domsched } from './ps-layouts.ts';

/** The domain without its registers, as a hypervisor without a monitor has it. */
function withoutRegisters(domain: Domain<FrameNumber>): Domain<FrameNumber> {
  return new Proxy(domain, {
    get: (target, key) => {
      if (key === 'registers') return undefined;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

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

test.serial('a kernel without a layout: symbols, types and processes by its memory alone', async (t) => {
  t.timeout(300_000);
  const cache = await mkdtemp(path.join(tmpdir(), 'domsched-cache-'));
  t.teardown(() => rm(cache, { recursive: true, force: true }));
  process.env.DOMSCHED_CACHE_DIR = cache;
  await using guest = await bootDebian({
    kernel: 'debian-6.12-cloud',
    name: 'web',
    programs: [{ kind: 'burner', name: 'burner-a' }],
  });
  const domain = await QemuDomain.attach({ qmp: guest.sockets.qmp }, guest.connection);
  const first = await Guest.attach(domain, []);
  t.teardown(() => domain.close());
  t.is(first.kernel.learned?.guest, 'web');
  t.is(first.kernel.release, guest.kernel.release);

  // Symbols: all that the guest itself shows, by name and address, wherever it was moved to.
  const { slide, layout } = first.kernel;
  t.true(slide > 0n, 'moved at random');
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
  t.is(Number(await guest.run('wc -l < /run/all')), count);
  t.true(count > 100_000, `${count} symbols`);
  const debug = await layoutOf(guest.kernel);
  for (const name of debug.symbolNames as SymbolName[]) t.is(layout.symbol(name), debug.symbol(name), name);
  for (const name of debug.symbolNames) t.is(layout.isPerCpu(name), debug.isPerCpu(name), name);

  // Members: what DWARF says of the same build.
  const names = debug.structNames.filter((name) => layout.has(name));
  t.true(names.length > 100, `${names.length} structures compared`);
  t.deepEqual(members(layout, names), members(debug, names));
  t.deepEqual(
    debug.structNames.filter((name) => !layout.has(name)),
    [],
  );

  const burner = async (attached: Guest): Promise<string | undefined> => {
    const { processes } = await attached.take();
    return processes.find(({ comm }) => comm === 'burner-a')?.state;
  };
  t.true(['running', 'ready'].includes((await burner(first))!));

  // Kept: the second time, and without registers, which says the same of where it is.
  const again = await Guest.attach(domain, []);
  t.deepEqual(again.kernel.learned, first.kernel.learned);
  t.true(['running', 'ready'].includes((await burner(again))!));
  await rm(cache, { recursive: true, force: true });
  const blind = await Guest.attach(withoutRegisters(domain), []);
  t.not(blind.kernel.learned!.date, first.kernel.learned!.date);
  t.deepEqual([blind.kernel.slide, blind.kernel.physBase], [slide, first.kernel.physBase]);
  t.deepEqual(blind.layout.symbolNames, layout.symbolNames);

  for (const attached of [first, again, blind]) attached.detach();
  // The command: the same layout. QEMU's monitor takes one at a time.
  await domain.close();
  const { stdout } = await domsched([
    'extract',
    '--from',
    'web',
    '--connect',
    guest.connection,
    '--json',
    '-',
  ]);
  const extracted = JSON.parse(stdout) as KernelLayout;
  t.is(extracted.kernel.buildId, first.kernel.buildId);
  t.is(extracted.source.file, 'memory of web');
  t.deepEqual(Object.keys(extracted.symbols).sort(), layout.symbolNames.toSorted());
  guest.checkConsole();
});
