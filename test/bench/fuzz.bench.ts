/**
 * `node test/bench/fuzz.bench.ts [RUNS]`: mutated ELF, DWARF and BTF inputs and dumps, RUNS in all (200,000 by default), each
 * to be read or refused with an error of ours. Fails on any other exception, on an input that takes seconds, and on growth.
 */
import process from 'node:process';
import { styleText } from 'node:util';
import { fuzzBtf } from '../extractor/btf/fuzz.ts';
import { fuzzDwarf } from '../extractor/dwarf/fuzz.ts';
import { fuzzKernelFiles } from '../extractor/elf/fuzz.ts';
import { fuzzDumps } from '../runtime/hypervisor/fuzz.ts';

const SLOWEST_MS = 5_000;
const PEAK_BYTES = 1024 ** 3;

const total = Number(process.argv[2] ?? 200_000);
if (!Number.isSafeInteger(total) || total < 3) {
  process.stderr.write('usage: node test/bench/fuzz.bench.ts [RUNS]\n');
  process.exit(2);
}
// Any seed does; the same one finds the same failure again.
const seed = Number(process.env.FUZZ_SEED ?? Date.now() % 2 ** 31);
const parts = [
  { name: 'BTF', share: 0.4, fuzz: fuzzBtf },
  { name: 'ELF', share: 0.3, fuzz: fuzzKernelFiles },
  { name: 'DWARF', share: 0.2, fuzz: fuzzDwarf },
  { name: 'dumps', share: 0.1, fuzz: fuzzDumps },
];

let failed = false;
for (const { name, share, fuzz } of parts) {
  const runs = Math.ceil(total * share);
  const report = await fuzz({
    runs,
    seed,
    progress: (done) => {
      if (process.stderr.isTTY) process.stderr.write(`\r${name}: ${done} of ${runs} `);
    },
  });
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  const bad = report.slowestMs > SLOWEST_MS || report.peakRss > PEAK_BYTES;
  failed ||= bad;
  const outcomes = Object.entries(report.outcomes)
    .sort(([, a], [, b]) => b - a)
    .map(([code, count]) => `${code} ${count}`);
  const figures = `slowest ${report.slowestMs.toFixed(0)} ms, peak ${Math.round(report.peakRss / 2 ** 20)} MiB`;
  const line = `${name}: ${runs} inputs of seed ${seed}, ${figures}; ${outcomes.join(', ')}`;
  process.stdout.write(`${bad && process.stdout.isTTY ? styleText('red', line) : line}\n`);
}
process.exitCode = failed ? 1 : 0;
