import { readFileSync } from 'node:fs';
import process from 'node:process';

/** A process of this host that no later one is taken for: process ids are given again, start times are not. */
export interface HostProcess {
  readonly pid: number;
  /** Ticks from the host's boot to its start, as `/proc/PID/stat` has them. */
  readonly started: number;
}

/** @returns undefined when there is none, or it has ended and only its parent was not told yet */
export function hostProcess(pid: number): HostProcess | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The name in parentheses may hold anything. After it come state (3) and the rest, the start time is field 22.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const started = Number(fields[19]);
  if (fields[0] === 'Z' || fields[0] === 'X' || !Number.isSafeInteger(started)) return undefined;
  return { pid, started };
}

/** Whether this very process still is. */
export function isAlive({ pid, started }: HostProcess): boolean {
  return hostProcess(pid)?.started === started;
}

let own: HostProcess | undefined;

/** Ours. */
export function ownProcess(): HostProcess {
  own ??= hostProcess(process.pid)!;
  return own;
}
