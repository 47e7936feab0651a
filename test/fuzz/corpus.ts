import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { FuzzTarget } from './target.ts';

const TARGETS = path.join(import.meta.dirname, 'targets');
/** Inputs that reached something new in a reader once, the smallest of each kind. */
export const CORPUS = path.join(import.meta.dirname, 'corpus');

/** Names of all targets. */
export const targetNames: readonly string[] = readdirSync(TARGETS)
  .map((file) => path.basename(file, '.ts'))
  .sort();

export function targetFile(name: string): string {
  return path.join(TARGETS, `${name}.ts`);
}

export async function loadTarget(name: string): Promise<FuzzTarget> {
  return (await import(targetFile(name))) as FuzzTarget;
}

/** The kept inputs of a target. */
export function kept(name: string): { file: string; bytes: Buffer }[] {
  const folder = path.join(CORPUS, name);
  if (!existsSync(folder)) return [];
  return readdirSync(folder).map((file) => ({ file, bytes: readFileSync(path.join(folder, file)) }));
}
