/** Programs in C that tests look at, compiled when they are needed. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ExecutionContext } from 'ava';

/** Starts a program that says something when it is up. It ends with the test. @param source its file */
export async function startC(
  t: ExecutionContext,
  source: string,
): Promise<ChildProcess & { readonly pid: number }> {
  const folder = mkdtempSync(path.join(tmpdir(), 'domsched-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const program = path.join(folder, path.basename(source, '.c'));
  execFileSync('gcc', ['-O1', '-Wall', '-Werror', '-pthread', '-o', program, source]);
  const child = spawn(program, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout!, 'data');
  return child as ChildProcess & { readonly pid: number };
}
