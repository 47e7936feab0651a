/** C of tests, compiled when it is needed: programs that are looked at, and libraries that are called. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import type { ExecutionContext } from 'ava';

function compile(source: string, result: string, ...options: string[]): string {
  execFileSync('gcc', ['-O1', '-Wall', '-Werror', '-pthread', ...options, '-o', result, source]);
  return result;
}

function newFolder(): string {
  return mkdtempSync(path.join(tmpdir(), 'domsched-'));
}

/** Starts a program that says something when it is up. It ends with the test. @param source its file */
export async function startC(
  t: ExecutionContext,
  source: string,
): Promise<ChildProcess & { readonly pid: number }> {
  const folder = newFolder();
  t.teardown(() => rmSync(folder, { recursive: true }));
  const program = compile(source, path.join(folder, path.basename(source, '.c')));
  const child = spawn(program, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout!, 'data');
  return child as ChildProcess & { readonly pid: number };
}

const libraries = new Map<string, string>();

/** A shared library, compiled once per test file. @param source its file @returns where it is */
export function libraryOfC(source: string): string {
  let file = libraries.get(source);
  if (file === undefined) {
    const folder = newFolder();
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
    file = compile(source, path.join(folder, `${path.basename(source, '.c')}.so`), '-shared', '-fPIC');
    libraries.set(source, file);
  }
  return file;
}
