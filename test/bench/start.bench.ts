/**
 * `node test/bench/start.bench.ts [FILE…]`: what the start of a unit test file costs, without its tests. Starts every
 * file once, the slowest again, and prints the ten slowest, each with the least of its runs. A first run of all fills
 * the cache of compiled sources (`test/compiled.js`).
 */
import { globSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import Table from 'cli-table3';
import { projectDirectory } from '../../kernels/paths.ts';
import { measure, record } from './harness.ts';

const SHOWN = 10;
const ROUNDS = 3;
const ROOMS = '{bench,codegen,extractor,fuzz,kernels,package,runtime}';

const ava = path.join(projectDirectory, 'node_modules/.bin/ava');
const given = process.argv.slice(2);
const files = given.length > 0 ? given : globSync(`test/${ROOMS}/**/*.test.ts`, { cwd: projectDirectory });

async function start(file: string): Promise<{ file: string; wall: number; cpu: number }> {
  // No test has this name: ava ends when the file is loaded, and says so by its exit code.
  const expectsNone = '"$0" "$@"; test $? -eq 1';
  const command = ['sh', '-c', expectsNone, process.execPath, ava, file, '--match=-'] as const;
  const { wall, cpu } = await measure({ command, cwd: projectDirectory });
  return { file, wall, cpu };
}

await start(files[0]!);
const first = [];
for (const file of files) first.push(await start(file));
const slowest = [];
for (const once of first.toSorted((a, b) => b.wall - a.wall).slice(0, SHOWN)) {
  const runs = [once];
  while (runs.length < ROUNDS) runs.push(await start(once.file));
  const least = (figure: 'wall' | 'cpu') => Math.min(...runs.map((run) => run[figure]));
  slowest.push({ file: once.file, wall: least('wall'), cpu: least('cpu') });
}
slowest.sort((a, b) => b.wall - a.wall);

const table = new Table({
  head: ['start of', 'wall, ms', 'CPU, ms'],
  colAligns: ['left', 'right', 'right'],
  style: { head: [], border: [] },
});
for (const { file, wall, cpu } of slowest) table.push([file, wall.toFixed(0), cpu.toFixed(0)]);
console.log(`${files.length} files\n${table.toString()}`);
await record('start', { files: files.length, slowest });
