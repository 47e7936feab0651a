/**
 * A guest whose kernel no layout is known of: everything comes from its own memory, and is what the guest itself and its
 * debug package say.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { copyFile, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { pipeline } from 'node:stream/promises';
import test from 'ava';
import type { KernelLayout } from '../../extractor/contract.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { connectAll } from '../../runtime/hypervisor/connect.ts';
import type { FrameNumber } from '../../runtime/hypervisor/frame.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import type { Domain } from '../../runtime/hypervisor/types.ts';
import { openDomain } from '../../runtime/watch/choose.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { layoutOf } from '../real-kernels.ts';
import { limeHeader } from '../runtime/hypervisor/dump-files.ts';
import { memoryKernelOf, sameLayout, shownSymbols, symbolsOf } from './from-memory.ts';
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

  const { slide, layout } = first.kernel;
  t.true(slide > 0n, 'moved at random');
  // All that the guest's own /proc/kallsyms shows, by name and address.
  const shown = await shownSymbols(guest);
  t.deepEqual(symbolsOf((await memoryKernelOf(domain)).symbols(), slide), shown);
  t.true(shown.count > 100_000);
  // Members: what DWARF says of the same build.
  sameLayout(t, layout, await layoutOf(guest.kernel));

  const burner = async (attached: Guest): Promise<string | undefined> => {
    const processes = await processesOf(attached);
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

  // Dumps: of every format the same, and the same command.
  const monitor = await guest.monitor();
  await monitor.execute('stop');
  const at = (name: string) => path.join(cache, name);
  const dump = (name: string, options: object) =>
    monitor.execute(
      'dump-guest-memory',
      { paging: false, ...options, protocol: `file:${at(name)}` },
      300_000,
    );
  await dump('elf', {});
  await dump('kdump', { format: 'kdump-zlib' });
  const memory = path.join(guest.directory, 'memory');
  await copyFile(memory, at('raw'));
  await writeFile(at('lime'), limeHeader(0, (await stat(memory)).size));
  await pipeline(createReadStream(memory), createWriteStream(at('lime'), { flags: 'a' }));
  await monitor.execute('cont');
  for (const name of ['elf', 'kdump', 'lime', 'raw']) {
    await rm(path.join(cache, 'layouts'), { recursive: true, force: true });
    await using hosts = await connectAll([`dump:${at(name)}`]);
    await using image = await openDomain(hosts, name);
    const dumped = await Guest.attach(image, []);
    t.is(dumped.kernel.learned?.guest, name);
    t.deepEqual([dumped.kernel.slide, dumped.layout.symbolNames], [slide, layout.symbolNames], name);
    t.true(['running', 'ready'].includes((await burner(dumped))!), name);
    dumped.detach();
  }
  const args = ['extract', '--from', 'raw', '--connect', `dump:${at('raw')}`, '--json', '-'];
  const fromDump = JSON.parse((await domsched(args)).stdout) as KernelLayout;
  const { source: _, ...facts } = extracted;
  const { source, ...dumped } = fromDump;
  t.deepEqual(dumped, facts);
  t.is(source.file, 'memory of raw');
  guest.checkConsole();
});
