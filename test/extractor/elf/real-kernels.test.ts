import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import test from 'ava';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import { percpuSymbols } from '../../../extractor/elf/percpu.ts';
import { SYMBOLS } from '../../../extractor/needs.ts';
import { realKernels } from '../../real-kernels.ts';
import { nmSymbols, readelfBuildId, readelfSections, tool } from './tools.ts';

const kernels = realKernels();

for (const { release, vmlinux, vmlinuz, config: configPath } of kernels) {
  test.serial(`${release}: debug vmlinux as readelf, nm and sha256sum see it`, async (t) => {
    await using file = await openKernelFile(vmlinux, { debugRoots: [] });
    t.is(file.buildId, readelfBuildId(vmlinux));
    t.is(file.release(), release);
    const sections = readelfSections(vmlinux);
    t.deepEqual(
      sections.map(({ name, size, address }) => [name, size, address]),
      sections.map(({ name }) => [name, file.section(name)!.size, file.section(name)!.address]),
    );
    const expected = nmSymbols(vmlinux);
    const names = [
      'runqueues',
      'init_task',
      'schedule',
      'current_task',
      'pcpu_hot',
      '__per_cpu_offset',
      'swapper_pg_dir',
      'cpu_info',
    ];
    const found = file.lookup(names);
    for (const name of names)
      t.deepEqual(found.get(name) ? [found.get(name)!.address] : undefined, expected.get(name), name);
    t.true(found.size >= 5);
    // nm leaves out what only tools see; what it lists must all be there, at the same places.
    const all = new Map<string, Set<bigint>>();
    for (const { name, address } of file.symbols()) all.set(name, (all.get(name) ?? new Set()).add(address));
    let missing = 0;
    for (const [name, addresses] of expected) {
      for (const address of addresses) if (!all.get(name)?.has(address)) missing++;
    }
    t.is(missing, 0);
    const percpu = percpuSymbols(file, found.keys());
    t.true(percpu.includes('runqueues') && percpu.includes('cpu_info'));
    t.false(percpu.includes('init_task') || percpu.includes('__per_cpu_offset'));
    t.is(await file.sha256(), tool('sha256sum', vmlinux).slice(0, 64));
    const config = file.config()!;
    const text = readFileSync(configPath, 'utf8');
    t.is(Object.keys(config).length, text.match(/^CONFIG_\w+=/gm)!.length);
    t.is(config.CONFIG_SMP, 'y');
  });

  test.serial(`${release}: the packed kernel is the same build`, async (t) => {
    await using full = await openKernelFile(vmlinux, { debugRoots: [] });
    await using packed = await openKernelFile(vmlinuz, { debugRoots: [] });
    t.is(packed.buildId, readelfBuildId(vmlinux));
    t.is(packed.banner(), full.banner());
    t.is(packed.release(), release);
    const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
    // Link-time contents: unpacking must give the very bytes that the linker wrote.
    t.is(digest(packed.section('.BTF')!.read()), digest(full.section('.BTF')!.read()));
    t.is(packed.section('.debug_info'), null);
    t.is(await packed.sha256(), tool('sha256sum', vmlinuz).slice(0, 64));
    t.true(tool('readelf', '-SW', packed.elfPath!).includes('.BTF'));
  });

  test.serial(
    `${release}: the packed kernel's own symbols are those that nm sees in the debug vmlinux`,
    async (t) => {
      await using packed = await openKernelFile(vmlinuz, { debugRoots: [] });
      const expected = nmSymbols(vmlinux);
      const own = new Set<string>();
      let count = 0;
      const wrong: string[] = [];
      for (const { name, address } of packed.symbols()) {
        count++;
        own.add(name);
        if (!expected.get(name)?.includes(address)) wrong.push(name);
      }
      t.deepEqual(wrong, []);
      t.true(count > 80_000, `${count} symbols`);
      const absent = SYMBOLS.filter((name) => expected.has(name) && !own.has(name));
      t.deepEqual(absent, []);
      const known = packed.lookup(SYMBOLS).keys();
      await using full = await openKernelFile(vmlinux, { debugRoots: [] });
      t.deepEqual(new Set(percpuSymbols(packed, known)), new Set(percpuSymbols(full, SYMBOLS)));
    },
  );
}
