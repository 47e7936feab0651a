import path from 'node:path';
import type { Process } from '../guest/process.ts';
import { runtimeDirectory } from '../runtime-directory.ts';

/**
 * The daemon's control socket: JSON, a line each. A request is `{"id":1,"op":"hold",…}`, its answer
 * `{"id":1,"result":…}` or `{"id":1,"error":{"code":…,"message":…,"details":…}}`; `watch` is answered with
 * `{"id":1,"tick":…}` for every tick until the client closes.
 */
export function controlPath(): string {
  // Not *.sock: those in this directory are taken for QEMU's.
  return path.join(runtimeDirectory(), 'control');
}

/** Bytes of one request. */
export const MAX_REQUEST = 64 * 1024;

/** What `hold`, `release` and `renice` answer. */
export interface EditAnswer {
  readonly domain: string;
  readonly pid: number;
  readonly comm: string;
  readonly outcome: string;
  readonly techniques: readonly string[];
  readonly attempts: number;
  readonly pausedUs: number;
  readonly writes: number;
  /** Structures of ended tasks that nobody could free; absent when there were none. */
  readonly kept?: number;
  /** Of a group: the pids of all its processes. */
  readonly members?: readonly number[];
  /** The words of a dry run. */
  readonly planned: readonly string[];
}

/** What `releaseAll` answers. */
export interface ReleaseAllAnswer {
  readonly released: readonly EditAnswer[];
  readonly failures: readonly { readonly domain: string; readonly code: string; readonly message: string }[];
}

/** A process for those who look: where it is in the guest's memory is nobody's business. */
export type PlainProcess = Omit<Process, 'address'>;

/** What `ps` answers. */
export interface PsAnswer {
  readonly rows: readonly (PlainProcess & { readonly domain: string })[];
  readonly errors: readonly { readonly domain: string; readonly code: string; readonly message: string }[];
}
