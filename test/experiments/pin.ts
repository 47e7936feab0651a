import os from 'node:os';
import { execa } from 'execa';

/** Leaves a process, all its threads, one CPU of the host. */
export async function pin(pid: number, cpu: number | string): Promise<void> {
  await execa('taskset', ['--all-tasks', '--cpu-list', '--pid', String(cpu), String(pid)]);
}

/** Gives a process all CPUs back. */
export async function unpin(pid: number): Promise<void> {
  await pin(pid, `0-${os.cpus().length - 1}`);
}
