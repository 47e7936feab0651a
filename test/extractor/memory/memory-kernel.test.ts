/** Kernels by their own image in memory, built in code: what Debian's do not have. */
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { extractMemory } from '../../../extractor/memory/extract.ts';
import { MemoryKernel } from '../../../extractor/memory/memory-kernel.ts';
import { BtfBuilder } from '../build-btf.ts';
import { BANNER, buildIdNote } from '../elf/build-elf.ts';
import { buildKallsyms, FORMATS, manySymbols, type TableFormat } from '../kallsyms/build-kallsyms.ts';

const ADDRESS = 0xffff_ffff_8200_0000n;
const FORMAT: TableFormat = FORMATS['6.15 to 6.19']!;
const BUILD_ID = '0123456789abcdef0123456789abcdef01234567';

interface ConstantParts {
  btf?: boolean;
  kallsyms?: boolean;
  config?: string;
}

/** A kernel's constants: banner, notes, types, configuration, and the symbols that say where these are. */
function constants({ btf = true, kallsyms = true, config }: ConstantParts) {
  const pieces: Buffer[] = [];
  const symbols: Record<string, bigint> = {};
  const put = (bytes: Uint8Array, start: string, end?: string) => {
    const at = pieces.reduce((sum, { length }) => sum + length, 0);
    symbols[start] = ADDRESS + BigInt(at);
    if (end !== undefined) symbols[end] = ADDRESS + BigInt(at + bytes.length);
    pieces.push(Buffer.from(bytes), Buffer.alloc(8 - (bytes.length % 8)));
  };
  put(Buffer.from(`${BANNER}\n\0`, 'latin1'), 'linux_banner');
  const builder = new BtfBuilder();
  const int = builder.int('int', 4, 1);
  builder.record('struct', 'task_struct', 8, [
    ['pid', int, 0],
    ['tgid', int, 32],
  ]);
  if (btf) put(builder.bytes(), '__start_BTF', '__stop_BTF');
  if (config !== undefined) {
    // kernel/configs.c: the symbols are inside of the marks.
    pieces.push(Buffer.from('IKCFG_ST', 'latin1'));
    const packed = gzipSync(config);
    const at = pieces.reduce((sum, { length }) => sum + length, 0);
    symbols.kernel_config_data = ADDRESS + BigInt(at);
    symbols.kernel_config_data_end = ADDRESS + BigInt(at + packed.length);
    pieces.push(packed, Buffer.from('IKCFG_ED', 'latin1'));
    const end = at + packed.length + 8;
    pieces.push(Buffer.alloc(8 - (end % 8)));
  }
  put(buildIdNote(BUILD_ID), '__start_notes', '__stop_notes');
  const at = pieces.reduce((sum, { length }) => sum + length, 0);
  const many = manySymbols(1500, symbols.linux_banner!, FORMAT.encoding).filter(
    ({ text }) => text !== 'Dlinux_banner' && text !== 'B_end',
  );
  const named = Object.entries(symbols)
    .map(([name, address]) => ({ text: `R${name}`, address }))
    .sort((a, b) => (a.address < b.address ? -1 : 1));
  if (kallsyms) pieces.push(buildKallsyms([...many, ...named], FORMAT, ADDRESS + BigInt(at)));
  pieces.push(Buffer.alloc(64));
  return {
    name: 'memory of web',
    parts: [{ address: ADDRESS, bytes: new Uint8Array(Buffer.concat(pieces)) }],
  };
}

const TEXT = '# CONFIG_DEBUG is not set\nCONFIG_SMP=y\nCONFIG_HZ=250\nCONFIG_LOCALVERSION="-own"\n';
const selection = { kind: 'named', names: ['task_struct'], scheduler: false } as const;

test('a configuration in the kernel (IKCONFIG) is the layout’s, and part of what the layout is known by', async (t) => {
  const { layout, evidence } = await extractMemory(constants({ config: TEXT }), selection);
  t.deepEqual(layout.config, { CONFIG_SMP: 'y', CONFIG_HZ: '250', CONFIG_LOCALVERSION: '"-own"' });
  t.is(layout.kernel.buildId, BUILD_ID);
  t.is(layout.structs.task_struct!.size, 8);
  const without = await extractMemory(constants({}), selection);
  t.is(without.layout.config, undefined);
  t.is(evidence.ranges.length, without.evidence.ranges.length + 1);
  // What is no configuration is none, and keeps nobody from the rest.
  const spoiled = constants({ config: TEXT });
  const bytes = Buffer.from(spoiled.parts[0]!.bytes.buffer);
  bytes.fill(0xff, bytes.indexOf('IKCFG_ST') + 8, bytes.indexOf('IKCFG_ED'));
  const { layout: rest } = await extractMemory(spoiled, selection);
  t.is(rest.config, undefined);
  t.is(rest.structs.task_struct!.size, 8);
});

test('which table is missing, and the build-id all the same', async (t) => {
  for (const missing of ['btf', 'kallsyms'] as const) {
    const error = await t.throwsAsync<Error & { details: object }>(
      MemoryKernel.open(constants({ [missing]: false })),
      { code: 'no-debug-information' },
    );
    t.deepEqual(error!.details, { missing, buildId: BUILD_ID });
  }
  // The note of a vDSO, a file among the constants, is another's.
  const { name, parts } = constants({ kallsyms: false });
  const note = buildIdNote('ee'.repeat(20));
  const file = Buffer.alloc(8192);
  file.write('\x7fELF\x02', 0, 'latin1');
  file.writeBigUInt64LE(8192n, 40);
  note.copy(file, 0x400);
  const both = [{ address: ADDRESS - 8192n, bytes: new Uint8Array(file) }, ...parts];
  const error = await t.throwsAsync<Error & { details: object }>(MemoryKernel.open({ name, parts: both }));
  t.deepEqual(error!.details, { missing: 'kallsyms', buildId: BUILD_ID });
});
