import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';

/** What the fuzzers of all formats tell. */
interface FuzzOutcomes {
  outcomes: Record<string, number>;
  peakRss: number;
}

/**
 * Runs a fuzzer in a process of its own: resident memory is counted by process, and ava runs test files as threads of
 * one.
 * @param module beside this file, e.g. `btf/fuzz.ts`
 */
export async function fuzzInProcess(module: string, runs: number, seed: number): Promise<FuzzOutcomes> {
  const file = fileURLToPath(new URL(module, import.meta.url));
  const { stdout } = await execa(process.execPath, [file, String(runs), String(seed)]);
  return JSON.parse(stdout) as FuzzOutcomes;
}
