import { processState } from './qemu/qemu-process.ts';
import { lastRan } from './thread-clock.ts';

/** Whether a signal (SIGSTOP) or a debugger has stopped a process. */
export function isStopped(pid: number): boolean {
  const state = processState(pid);
  return state === 'T' || state === 't';
}

/** When a stopped process last ran, ms since 1970; absent if the kernel does not tell. */
export function stopped(pid: number): { readonly since?: number } {
  const now = lastRan('thread-self');
  const then = lastRan(pid);
  return now === undefined || then === undefined ? {} : { since: Math.round(Date.now() - (now - then)) };
}
