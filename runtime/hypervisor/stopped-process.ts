import { processState } from './qemu/qemu-process.ts';
import { lastRan } from './thread-clock.ts';

/** Whether a signal (SIGSTOP) or a debugger has stopped a process. */
export function isStopped(pid: number): boolean {
  const state = processState(pid);
  return state === 'T' || state === 't';
}

/**
 * When a stopped process last ran, ms since 1970; absent if the kernel does not tell. An estimate: each CPU has a clock of
 * its own for this, which leaves out what interrupts and a hypervisor below took, so two may be seconds apart.
 */
export function stopped(pid: number): { readonly since?: number } {
  const now = lastRan('thread-self');
  const then = lastRan(pid);
  if (now === undefined || then === undefined) return {};
  return { since: Math.round(Date.now() - Math.max(0, now - then)) };
}
