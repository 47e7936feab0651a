import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import { BANNER, buildBootImage, buildElf, buildKernel, withSize } from './build-elf.ts';
import { refusal, scratch } from './scratch.ts';
import { tool } from './tools.ts';

const PACKERS: readonly (readonly [name: string, ...command: string[]])[] = [
  ['gzip', 'gzip', '-9n'],
  ['xz', 'xz', '-1'],
  ['zstd', 'zstd', '-q'],
  ['zstd -19 without size', 'zstd', '-q', '-19', '--no-content-size'],
  ['lz4 -l', 'lz4', '-q', '-l'],
  ['lz4', 'lz4', '-q'],
  ['bzip2', 'bzip2', '-1'],
  ['lzma', 'xz', '--format=lzma', '-1'],
  ['lzop', 'lzop', '-q'],
];

/** A kernel with enough of text and noise to need several LZ4 blocks and matches of all kinds. */
function bigKernel(): Buffer {
  const words = Buffer.alloc(17 << 20);
  let state = 12345;
  for (let at = 0; at < words.length; ) {
    state = (state * 1103515245 + 12345) & 0x7fffffff;
    const run = (state >> 8) & 0x3ff;
    words.fill(state & 0xff, at, Math.min(at + (state % 3 === 0 ? run : run >> 6), words.length));
    at += (state % 3 === 0 ? run : run >> 6) + 1;
  }
  return buildKernel([{ name: '.debug_str', bytes: words }]);
}

function pack(bytes: Uint8Array, command: readonly string[]): Buffer {
  return execFileSync(command[0]!, [...command.slice(1), '-c'], { input: bytes, maxBuffer: 1 << 30 });
}

for (const [name, ...command] of PACKERS) {
  test.serial(`a whole file packed with ${name}, whatever its name`, async (t) => {
    const at = scratch(t);
    const elf = bigKernel();
    writeFileSync(at('vmlinux.bin'), pack(elf, command));
    const seen: number[] = [];
    await using file = await openKernelFile(at('vmlinux.bin'), {
      progress: (done, total, what) => {
        seen.push(done / total);
        t.is(what, 'unpack vmlinux.bin');
      },
    });
    t.is(file.banner(), BANNER);
    t.is(file.buildId, '0123456789abcdef');
    t.true(readFileSync(file.elfPath!).equals(elf));
    t.is(await file.sha256(), tool('sha256sum', at('vmlinux.bin')).slice(0, 64));
    t.true(seen.length > 0 && seen.every((part, index) => part <= 1 && part >= (seen[index - 1] ?? 0)));
  });
}

test.serial('other programs can open the unpacked file', async (t) => {
  const at = scratch(t);
  writeFileSync(at('k.gz'), pack(buildKernel(), ['gzip']));
  tool('mkdir', at('tmp'));
  await using file = await openKernelFile(at('k.gz'), { temporaryDirectory: at('tmp') });
  // Nothing is there for a signal to leave behind.
  t.deepEqual(readdirSync(at('tmp')), []);
  t.true(tool('readelf', '-SW', file.elfPath!).includes('.data..percpu'));
});

test.serial('a file cut anywhere is refused, and no temporary file stays', async (t) => {
  const at = scratch(t);
  tool('mkdir', at('tmp'));
  const elf = buildKernel([{ name: '.debug_str', bytes: Buffer.from('x'.repeat(5000)) }]);
  for (const [name, ...command] of PACKERS) {
    const packed = pack(elf, command);
    for (const length of [packed.length - 1, packed.length - 9, packed.length >> 1, 16, 9, 7]) {
      writeFileSync(at('cut'), packed.subarray(0, length));
      const code = await refusal(at('cut'), { temporaryDirectory: at('tmp') });
      // An LZ4 frame may end after any of its blocks; then it is the ELF file that is cut.
      t.true(['truncated', 'corrupt-archive', 'not-a-kernel'].includes(code!), `${name} ${length} ${code}`);
    }
  }
  t.deepEqual(readdirSync(at('tmp')), []);
});

test.serial('damaged streams are refused', async (t) => {
  const at = scratch(t);
  const elf = buildKernel([{ name: '.debug_str', bytes: Buffer.from('abcdefgh'.repeat(500)) }]);
  // LZ4's legacy frame and LZMA alone have no checksum: nothing tells damaged literals.
  for (const [name, ...command] of PACKERS.filter(([name]) => name !== 'lz4 -l' && name !== 'lzma')) {
    const packed = Buffer.from(pack(elf, command));
    packed.fill(0xff, packed.length >> 1, (packed.length >> 1) + 8);
    writeFileSync(at('damaged'), packed);
    const code = await refusal(at('damaged'));
    t.true(['corrupt-archive', 'truncated'].includes(code!), `${name} ${code}`);
  }
});

test.serial('a compression whose program is missing says what to install', async (t) => {
  const at = scratch(t);
  const elf = buildKernel();
  tool('mkdir', at('empty'));
  const { PATH } = process.env;
  t.teardown(() => {
    process.env.PATH = PATH;
  });
  for (const [name, ...command] of PACKERS.filter(([name]) => /^(?:xz|lz4|bzip2|lzma|lzop)$/.test(name))) {
    process.env.PATH = PATH;
    writeFileSync(at(name), pack(elf, command));
    process.env.PATH = at('empty');
    const error = (await t.throwsAsync(openKernelFile(at(name)), { code: 'unsupported-compression' }))!;
    process.env.PATH = PATH;
    // The package that is named is the one that has the program, and this machine has both.
    const [, program, debian] = /, and (\S+) is not installed: apt-get install (\S+)$/.exec(error.message)!;
    const owner = tool('dpkg', '-L', debian!).split('\n');
    t.true(
      owner.some((file) => file.endsWith(`bin/${program}`)),
      name,
    );
    await using file = await openKernelFile(at(name));
    t.is(file.banner(), BANNER);
  }
});

test.serial('a bomb stops at its bound', async (t) => {
  const at = scratch(t);
  // 192 MiB of zeroes pack to less than 200 KiB: more than 256 times, and more than the slack.
  const zeroes = Buffer.alloc(192 << 20);
  for (const command of [['gzip'], ['zstd', '-q']]) {
    writeFileSync(at('bomb'), pack(zeroes, command));
    t.is(await refusal(at('bomb')), 'corrupt-archive', command[0]!);
  }
  // A file packed again and again.
  let nested: Buffer = buildKernel();
  for (let layer = 0; layer < 6; layer++) nested = pack(nested, ['gzip']);
  writeFileSync(at('nested'), nested);
  t.is(await refusal(at('nested')), 'corrupt-archive');
});

test.serial('unpacking can be interrupted', async (t) => {
  const at = scratch(t);
  const elf = bigKernel();
  for (const [name, ...command] of PACKERS) {
    writeFileSync(at('packed'), pack(elf, command));
    const controller = new AbortController();
    const opening = openKernelFile(at('packed'), {
      signal: controller.signal,
      progress: () => controller.abort(),
    });
    await t.throwsAsync(opening, { code: 'interrupted' }, name);
    await t.throwsAsync(openKernelFile(at('packed'), { signal: AbortSignal.abort() }), {
      code: 'interrupted',
    });
  }
});

test.serial('no space left is said as such', async (t) => {
  const { TMPDIR } = process.env;
  const at = scratch(t);
  writeFileSync(at('k.zst'), pack(bigKernel(), ['zstd', '-q']));
  tool('mkdir', at('small'));
  try {
    tool('mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', at('small'));
  } catch {
    t.log('not run against a full file system: this user may not mount one');
    t.is(await refusal(at('k.zst'), { temporaryDirectory: at('missing') }), 'file-not-found');
    return;
  }
  try {
    process.env.TMPDIR = at('small');
    await t.throwsAsync(openKernelFile(at('k.zst')), {
      code: 'no-space',
      message: /set TMPDIR to a bigger place$/,
    });
    t.deepEqual(readdirSync(at('small')), []);
    process.env.TMPDIR = at('.');
    await using file = await openKernelFile(at('k.zst'));
    t.is(file.banner(), BANNER);
  } finally {
    if (TMPDIR === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = TMPDIR;
    tool('umount', at('small'));
  }
});

test.serial('bzImages as the build of the kernel packs them', async (t) => {
  const at = scratch(t);
  // What objcopy -S leaves: no symbols.
  const elf = Buffer.concat([
    buildElf([
      { name: '.rodata', flags: 2n, address: 0xffffffff82000000n, bytes: Buffer.from(`${BANNER}\n\0`) },
    ]),
    Buffer.alloc(3 << 20, 0x5a),
  ]);
  const payloads: [string, Buffer][] = [
    ['gzip', pack(elf, ['gzip', '-n', '-9'])],
    ['xz', withSize(pack(elf, ['xz', '--check=crc32', '--x86', '--lzma2=dict=32MiB']), elf.length)],
    ['lz4', withSize(pack(elf, ['lz4', '-q', '-l', '-9']), elf.length)],
    ['zstd', withSize(pack(elf, ['zstd', '-q', '--long=27', '-3']), elf.length)],
    ['bzip2', withSize(pack(elf, ['bzip2', '-9']), elf.length)],
    ['lzma', withSize(pack(elf, ['xz', '--format=lzma', '-6']), elf.length)],
    ['lzo', withSize(pack(elf, ['lzop', '-q', '-9']), elf.length)],
    ['not at all', withSize(elf, elf.length)],
  ];
  for (const [name, payload] of payloads) {
    writeFileSync(at('vmlinuz'), buildBootImage(payload));
    await using file = await openKernelFile(at('vmlinuz'), { debugRoots: [] });
    t.is(file.banner(), BANNER, name);
    t.true(readFileSync(file.elfPath!).equals(elf), name);
  }
  // Again as a whole file packed, as some archives keep them.
  writeFileSync(at('vmlinuz.gz'), pack(buildBootImage(payloads[2]![1]), ['gzip']));
  await using file = await openKernelFile(at('vmlinuz.gz'), { debugRoots: [] });
  t.is(file.release(), '6.1.0-test');
});

test.serial('the boot header tells the release where the kernel has no banner', async (t) => {
  const at = scratch(t);
  const elf = buildElf([{ name: '.text', bytes: Buffer.alloc(8) }]);
  writeFileSync(at('vmlinuz'), buildBootImage(pack(elf, ['gzip']), 0x0208, '5.10.0-9-amd64 (debian) #1'));
  await using file = await openKernelFile(at('vmlinuz'), { debugRoots: [] });
  t.is(file.banner(), null);
  t.is(file.release(), '5.10.0-9-amd64');
});

test.serial('a unified kernel image is unwrapped as its kernel is', async (t) => {
  const at = scratch(t);
  writeFileSync(at('vmlinuz'), buildBootImage(pack(buildKernel(), ['gzip', '-9n'])));
  writeFileSync(at('osrel'), 'NAME=test\n');
  // An EFI program by binutils, and its sections as ukify adds them.
  writeFileSync(at('stub.s'), '.globl _start\n_start: ret\n');
  tool('as', at('stub.s'), '-o', at('stub.o'));
  tool('ld', '-m', 'i386pep', '-e', '_start', at('stub.o'), '-o', at('stub.efi'));
  const add = (name: string, file: string, place: string): string[] => [
    '--add-section',
    `${name}=${file}`,
    '--change-section-vma',
    `${name}=${place}`,
  ];
  const osrel = add('.osrel', at('osrel'), '0x140020000');
  tool('objcopy', ...osrel, ...add('.linux', at('vmlinuz'), '0x142000000'), at('stub.efi'), at('uki.efi'));
  tool('objcopy', '-O', 'binary', '--only-section=.linux', at('uki.efi'), at('linux'));
  const image = readFileSync(at('uki.efi'));
  t.true(image.includes(readFileSync(at('vmlinuz'))));
  await using file = await openKernelFile(at('uki.efi'), { debugRoots: [] });
  t.is(file.banner(), BANNER);
  t.is(file.buildId, '0123456789abcdef');
  // Another EFI program, one that is cut, and no program at all.
  tool('objcopy', ...osrel, at('stub.efi'), at('other.efi'));
  t.is(await refusal(at('other.efi')), 'not-a-kernel');
  for (const length of [image.length >> 1, 0x90, 0x40, 0x3e, 2]) {
    writeFileSync(at('cut.efi'), image.subarray(0, length));
    const code = await refusal(at('cut.efi'));
    t.true(code === 'truncated' || code === 'not-a-kernel', `${length} ${code}`);
  }
});

test.serial('bzImages with lies in their header', async (t) => {
  const at = scratch(t);
  const elf = buildKernel();
  const lz4 = pack(elf, ['lz4', '-q', '-l']);
  const image = buildBootImage(withSize(lz4, elf.length));
  const changed = (offset: number, value: number): Buffer => {
    const copy = Buffer.from(image);
    copy.writeUInt32LE(value >>> 0, offset);
    return copy;
  };
  const cases: [string, Buffer, string][] = [
    ['too old', buildBootImage(withSize(lz4, elf.length), 0x0207), 'unsupported-compression'],
    ['payload outside', changed(0x248, 0xfffffff0), 'truncated'],
    ['endless payload', changed(0x24c, 0xffffffff), 'truncated'],
    ['no payload', changed(0x24c, 0), 'corrupt-archive'],
    ['unknown payload', changed(0x248, 0x20), 'unsupported-compression'],
    ['declared too small', buildBootImage(withSize(lz4, elf.length - 1)), 'corrupt-archive'],
    ['declared too big', buildBootImage(withSize(lz4, elf.length + 1)), 'corrupt-archive'],
    ['declared endless', buildBootImage(withSize(lz4, 0xffffffff)), 'corrupt-archive'],
    ['cut', image.subarray(0, image.length - 200), 'truncated'],
    ['cut in the header', image.subarray(0, 0x220), 'truncated'],
  ];
  for (const [name, bytes, code] of cases) {
    writeFileSync(at('vmlinuz'), bytes);
    t.is(await refusal(at('vmlinuz')), code as never, name);
  }
});
