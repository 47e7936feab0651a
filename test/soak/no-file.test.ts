/**
 * Each kernel of Debian's suites, booted at a random address and read without a file: symbols and structures by its
 * memory, and by its packed image, against the guest's own /proc/kallsyms and Debian's debug package. What was seen is
 * written down for `docs/no-file.md`. DOMSCHED_MATRIX=6.19,7.3 tries some.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import { openKernelFile } from '../../extractor/elf/open.ts';
import { extractLayout } from '../../extractor/extract.ts';
import { SYMBOLS } from '../../extractor/needs.ts';
import { type NoFileRow, noFileRow } from '../../kernels/no-file.ts';
import { layoutByDebugPackage } from '../../kernels/suite-debug.ts';
import { type SuiteKernel, suiteKernels } from '../../kernels/suites.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { kernelOf } from '../../runtime/layout/registry.ts';
import type { LayoutView } from '../../runtime/layout/view.ts';
import type { SymbolName } from '../../runtime/members/symbols.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { compareWithProc, READ_STATS } from '../live/against-proc.ts';
import { memoryKernelOf, movedBy, sameLayout, shownSymbols, symbolsOf } from '../live/from-memory.ts';
import { bootImage, type LiveGuest } from '../live/guest.ts';
import { parseProcStats } from '../live/proc-stat.ts';

const wanted = (process.env.DOMSCHED_MATRIX ?? '').split(',');
const chosen = suiteKernels().filter(({ release }) => wanted.some((part) => release.includes(part)));
if (chosen.length === 0)
  test('kernels of the suites', (t) => t.fail('they are not here: run `make kernels-all`'));

for (const kernel of chosen) {
  test.serial(`${kernel.release}: without a file`, async (t) => {
    t.timeout(1_200_000);
    const { release, suite } = kernel;
    const row: NoFileRow = { release, suite, symbols: 0, slideMiB: 0, cells: {}, anomalies: [] };
    // Nothing that was kept of another guest.
    const cache = await mkdtemp(path.join(tmpdir(), 'domsched-cache-'));
    const usual = process.env.DOMSCHED_CACHE_DIR ?? '';
    process.env.DOMSCHED_CACHE_DIR = cache;
    try {
      await compare(t, kernel, row);
    } catch (error) {
      row.anomalies.push(String((error as Error).message));
    } finally {
      process.env.DOMSCHED_CACHE_DIR = usual;
      await rm(cache, { recursive: true, force: true });
    }
    await mkdir(path.dirname(noFileRow(release)), { recursive: true });
    await writeFile(noFileRow(release), `${JSON.stringify(row, null, 2)}\n`);
    t.deepEqual(row.anomalies, []);
  });
}

async function compare(t: ExecutionContext, kernel: SuiteKernel, row: NoFileRow): Promise<void> {
  await using guest = await bootImage(kernel.vmlinuz, {
    name: `no-file-${kernel.release.replaceAll(/[^0-9a-z]/g, '-')}`,
    // Enough processes to compare, on kernels with few threads of their own too.
    programs: Array.from({ length: 8 }, (_, index) => ({
      kind: index < 2 ? 'burner' : 'sleeper',
      name: `program-${index}`,
    })),
  });
  await using domain = await QemuDomain.attach({ qmp: guest.sockets.qmp }, guest.connection);
  const attached = await Guest.attach(domain, []);
  const { layout, slide, learned } = attached.kernel;
  t.truthy(learned);
  t.is(attached.kernel.release, kernel.release);
  row.slideMiB = Number(slide >> 20n);

  const shown = await shownSymbols(guest);
  row.symbols = shown.count;
  t.true(shown.count > 50_000);
  await using image = await openKernelFile(kernel.vmlinuz, { debugRoots: [] });
  await check(row, 'memory', async () => {
    t.deepEqual(symbolsOf((await memoryKernelOf(domain)).symbols(), slide), shown);
  });
  await check(row, 'image', async () => {
    t.deepEqual(symbolsOf(image.symbols(), slide), shown);
  });
  await check(row, 'used', async () => {
    const own = await ownSymbols(guest);
    const differ = SYMBOLS.filter((name) => !isAt(layout, name as SymbolName, slide, own.get(name)));
    t.deepEqual(differ, []);
    return `${layout.symbolNames.length} of ${own.size}`;
  });
  await check(row, 'layout', async () => {
    const byImage = await extractLayout(image, { engine: 'auto', selection: { kind: 'scheduler' } });
    t.is(byImage.kernel.buildId, layout.kernel.buildId);
    sameLayout(t, layout, await kernelOf(byImage).load());
  });
  await check(row, 'DWARF', async () => {
    const byDebug = await layoutByDebugPackage(kernel);
    if (typeof byDebug === 'string') return byDebug;
    t.is(byDebug.kernel.buildId, layout.kernel.buildId);
    const view = await kernelOf(byDebug).load();
    sameLayout(t, layout, view);
    const members = view.structNames.map((name) => view.requireStruct(name).members.size);
    return `${members.reduce((sum, count) => sum + count, 0)} members`;
  });
  await check(row, 'ps', async () => {
    const before = parseProcStats(await guest.run(READ_STATS));
    const processes = await processesOf(attached);
    compareWithProc(t, before, processes, parseProcStats(await guest.run(READ_STATS)));
  });
  attached.detach();
  guest.checkConsole();
}

/** A column of a kernel. One that is wrong leaves the others to be tried. */
async function check(row: NoFileRow, column: string, act: () => Promise<unknown>): Promise<void> {
  try {
    const found = await act();
    row.cells[column] = typeof found === 'string' ? found : 'ok';
  } catch (error) {
    row.cells[column] = 'differs';
    row.anomalies.push(`${column}: ${(error as Error).message}`);
  }
}

/** Of the symbols that we use, those in the guest's own /proc/kallsyms: each at all addresses that it has there. */
async function ownSymbols(guest: LiveGuest): Promise<ReadonlyMap<string, readonly bigint[]>> {
  const found = new Map<string, bigint[]>();
  const lines = await guest.run(
    `grep -v '\\[' /proc/kallsyms | grep -E ' (${SYMBOLS.map((name) => name.replaceAll('.', '\\.')).join('|')})$'; true`,
    120_000,
  );
  for (const line of lines.trim().split('\n')) {
    const [address, , name] = line.split(' ');
    found.set(name!, [...(found.get(name!) ?? []), BigInt(`0x${address}`)]);
  }
  return found;
}

/** Whether a symbol is where the guest has it, or in neither. */
function isAt(
  layout: LayoutView,
  name: SymbolName,
  slide: bigint,
  addresses: readonly bigint[] | undefined,
): boolean {
  const linked = layout.symbol(name);
  if (linked === undefined) return addresses === undefined;
  return addresses?.includes(movedBy(linked, slide)) ?? false;
}
