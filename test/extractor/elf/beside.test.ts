import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { type OpenOptions, openKernelFile } from '../../../extractor/elf/open.ts';
import { percpuSymbols } from '../../../extractor/elf/percpu.ts';
import { runningKernel } from '../../../extractor/elf/running-kernel.ts';
import { BANNER, buildElf, buildIdNote, buildKernel } from './build-elf.ts';
import { scratch } from './scratch.ts';

/** What a kernel looks like unpacked from a bzImage: no symbols. */
function stripped(embedded: Uint8Array = Buffer.alloc(0)): Buffer {
  return buildElf([
    { name: '.text', flags: 6n, address: 0xffffffff81000000n, bytes: Buffer.alloc(64) },
    {
      name: '.rodata',
      flags: 2n,
      address: 0xffffffff82000000n,
      bytes: Buffer.concat([Buffer.from(`${BANNER}\n\0`), embedded]),
    },
  ]);
}

const MAP = `0000000000000000 D __per_cpu_start
0000000000000020 D runqueues
0000000000000100 D __per_cpu_end
0000000000000200 A absolute
ffffffff81000000 T _text
ffffffff81000040 T schedule
ffffffff81000050 t helper
ffffffff81000060 t helper
ffffffff82000000 D linux_banner
ffffffff83000000 B runqueues_not
`;

async function symbolsOf(path: string, options: OpenOptions): Promise<Record<string, bigint>> {
  await using file = await openKernelFile(path, { debugRoots: [], ...options });
  const names = ['runqueues', 'absolute', 'schedule', 'helper', 'linux_banner', 'runqueue', 'modular'];
  return Object.fromEntries([...file.lookup(names)].map(([name, { address }]) => [name, address]));
}

const EXPECTED = {
  runqueues: 0x20n,
  absolute: 0x200n,
  schedule: 0xffffffff81000040n,
  linux_banner: 0xffffffff82000000n,
};

test('System.map given, or beside the file by its release', async (t) => {
  const at = scratch(t);
  writeFileSync(at('vmlinux'), stripped());
  t.deepEqual(await symbolsOf(at('vmlinux'), {}), {});
  writeFileSync(at('map'), MAP);
  t.deepEqual(await symbolsOf(at('vmlinux'), { symbols: at('map') }), EXPECTED);
  writeFileSync(at('System.map-6.1.0-test'), MAP);
  t.deepEqual(await symbolsOf(at('vmlinux'), {}), EXPECTED);
  await using file = await openKernelFile(at('vmlinux'));
  t.deepEqual(percpuSymbols(file, ['runqueues', 'absolute', 'schedule', '__per_cpu_end']), ['runqueues']);
  t.deepEqual(
    [...file.symbols()].map(({ name, address, local }) => [name, address, local]),
    MAP.trim()
      .split('\n')
      .map((line) => line.split(' '))
      .map(([address, letter, name]) => [name, BigInt(`0x${address}`), letter === 't']),
  );
});

test('kallsyms of a randomized guest is moved back; its modules are left out', async (t) => {
  const at = scratch(t);
  writeFileSync(at('vmlinux'), stripped());
  const slide = 0x1a600000n;
  const moved = MAP.replaceAll(/^ffffffff[0-9a-f]{8}/gm, (address) =>
    (BigInt(`0x${address}`) + slide).toString(16),
  );
  writeFileSync(
    at('kallsyms'),
    `${moved}ffffffffc0a00000 t modular\t[ext4]\nffffffffc0a00010 T schedule\t[evil]\n`,
  );
  t.deepEqual(await symbolsOf(at('vmlinux'), { symbols: at('kallsyms') }), EXPECTED);
});

test('kallsyms beside BTF alone: moved back by what the configuration says, refused where nothing says', async (t) => {
  const at = scratch(t);
  writeFileSync(at('btf'), Buffer.concat([Buffer.from('9feb010018000000', 'hex'), Buffer.alloc(40)]));
  writeFileSync(at('map'), MAP);
  t.like(await symbolsOf(at('btf'), { symbols: at('map') }), { schedule: EXPECTED.schedule });
  const moved = MAP.replaceAll(/^ffffffff[0-9a-f]{8}/gm, (address) =>
    (BigInt(`0x${address}`) + 0x1a600000n).toString(16),
  );
  writeFileSync(at('kallsyms'), moved);
  await t.throwsAsync(symbolsOf(at('btf'), { symbols: at('kallsyms') }), {
    code: 'no-debug-information',
    message: /randomized.*--config/,
  });
  // Aligned upwards, as boot.h does it: 0x1000000.
  writeFileSync(at('config'), 'CONFIG_PHYSICAL_START=0xe00001\nCONFIG_PHYSICAL_ALIGN=0x200000\n');
  const options = { symbols: at('kallsyms'), config: at('config') };
  t.like(await symbolsOf(at('btf'), options), {
    schedule: EXPECTED.schedule,
    linux_banner: EXPECTED.linux_banner,
  });
});

test("the running kernel's own BTF: banner, build-id and configuration are the kernel's own", async (t) => {
  const at = scratch(t);
  for (const folder of ['sys/kernel/btf', 'proc', 'boot']) mkdirSync(at(folder), { recursive: true });
  writeFileSync(at('sys/kernel/btf/vmlinux'), '');
  symlinkSync('sys/kernel/btf/vmlinux', at('link'));
  t.is(runningKernel(at('link'), at('elsewhere')), null);
  t.deepEqual(runningKernel(at('link'), at('.')), { banner: null, buildId: null, config: null });
  writeFileSync(at('proc/version'), `${BANNER}\n`);
  writeFileSync(at('sys/kernel/notes'), buildIdNote('aabbccddee'));
  writeFileSync(at('boot/config-6.1.0-test'), CONFIG);
  t.deepEqual(runningKernel(at('link'), at('.')), {
    banner: BANNER,
    buildId: 'aabbccddee',
    config: at('boot/config-6.1.0-test'),
  });
  writeFileSync(at('proc/config.gz'), gzipSync(CONFIG));
  t.is(runningKernel(at('link'), at('.'))?.config, at('proc/config.gz'));
  t.is(runningKernel(at('proc/version'), at('.')), null);
  // And the machine's own, where its kernel shows it.
  if (!existsSync('/sys/kernel/btf/vmlinux')) return t.log('this kernel shows no BTF of its own');
  await using file = await openKernelFile('/sys/kernel/btf/vmlinux');
  t.is(file.release(), release());
  t.true(file.section('.BTF')!.size > 100_000);
});

test("Debian's System.map is no map", async (t) => {
  const at = scratch(t);
  const stub = 'ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n';
  writeFileSync(at('vmlinux'), stripped());
  writeFileSync(at('System.map-6.1.0-test'), stub);
  t.deepEqual(await symbolsOf(at('vmlinux'), {}), {});
  await t.throwsAsync(symbolsOf(at('vmlinux'), { symbols: at('System.map-6.1.0-test') }), {
    code: 'no-debug-information',
    message: /in which package/,
  });
});

test('maps that are hidden, empty or of another build', async (t) => {
  const at = scratch(t);
  writeFileSync(at('vmlinux'), stripped());
  writeFileSync(at('hidden'), MAP.replaceAll(/^[0-9a-f]{16}/gm, '0'.repeat(16)));
  writeFileSync(at('other'), MAP.replace('ffffffff82000000', 'ffffffff82000010'));
  writeFileSync(at('text'), 'nothing of that kind\n');
  writeFileSync(at('none'), '');
  for (const [name, message] of [
    ['hidden', /as root/],
    ['other', /another build/],
    ['text', /no symbols/],
    ['none', /no symbols/],
  ] as const) {
    await t.throwsAsync(symbolsOf(at('vmlinux'), { symbols: at(name) }), {
      code: 'no-debug-information',
      message,
    });
  }
  await t.throwsAsync(symbolsOf(at('vmlinux'), { symbols: at('missing') }), { code: 'file-not-found' });
  // Beside the file it was not asked for, so it is passed over.
  writeFileSync(at('System.map-6.1.0-test'), MAP.replace('ffffffff82000000', 'ffffffff82000010'));
  t.deepEqual(await symbolsOf(at('vmlinux'), {}), {});
});

const CONFIG = `# Linux/x86 6.1 Kernel Configuration
CONFIG_SMP=y
CONFIG_NR_CPUS=64
CONFIG_LOCALVERSION="-test"
CONFIG_EXT4_FS=m
# CONFIG_PREEMPT_RT is not set
`;
const PARSED = { CONFIG_SMP: 'y', CONFIG_NR_CPUS: '64', CONFIG_LOCALVERSION: '"-test"', CONFIG_EXT4_FS: 'm' };

async function configOf(path: string, options: OpenOptions = {}): Promise<Record<string, string> | null> {
  await using file = await openKernelFile(path, { debugRoots: [], ...options });
  return file.config();
}

test('configuration: given, embedded, beside the file', async (t) => {
  const at = scratch(t);
  writeFileSync(at('vmlinux'), stripped());
  t.is(await configOf(at('vmlinux')), null);
  writeFileSync(at('config-6.1.0-test'), CONFIG);
  t.deepEqual(await configOf(at('vmlinux')), PARSED);

  const ikconfig = Buffer.concat([
    Buffer.from('IKCFG_ST of somebody else'),
    Buffer.alloc((1 << 20) - 100),
    Buffer.from('IKCFG_ST'),
    gzipSync(CONFIG.replace('=64', '=8')),
    Buffer.from('IKCFG_ED'),
  ]);
  writeFileSync(at('vmlinux'), stripped(ikconfig));
  t.deepEqual(await configOf(at('vmlinux')), { ...PARSED, CONFIG_NR_CPUS: '8' });

  writeFileSync(at('config.gz'), gzipSync(CONFIG.replace('=64', '=2')));
  t.deepEqual(await configOf(at('vmlinux'), { config: at('config.gz') }), { ...PARSED, CONFIG_NR_CPUS: '2' });
});

test('a configuration that is none', async (t) => {
  const at = scratch(t);
  writeFileSync(at('vmlinux'), buildKernel());
  writeFileSync(at('text'), 'hello\n');
  writeFileSync(at('bomb'), gzipSync(Buffer.alloc(64 << 20)));
  for (const name of ['text', 'bomb']) {
    await t.throwsAsync(configOf(at('vmlinux'), { config: at(name) }), { code: 'config-mismatch' }, name);
  }
  await t.throwsAsync(configOf(at('vmlinux'), { config: at('missing') }), { code: 'file-not-found' });
});

test('read-only data full of false starts is not searched without end', async (t) => {
  const at = scratch(t);
  for (const start of ['IKCFG_ST', 'Linux version ']) {
    writeFileSync(at('vmlinux'), buildElf([{ name: '.rodata', bytes: Buffer.alloc(32 << 20, start) }]));
    await using file = await openKernelFile(at('vmlinux'), { debugRoots: [] });
    t.is(file.banner(), null);
    t.is(file.config(), null);
  }
});
