import { readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { type HostProcess, isAlive, ownProcess } from '../../host-process.ts';
import { makePrivate, runtimeDirectory, writePrivate } from '../../runtime-directory.ts';
import { lastRan } from '../thread-clock.ts';

/**
 * For so long after a mark was made the machine may still run: until it stops, and while its registers are read. Beyond
 * that, somebody has resumed it since, and the pause that it is in is not ours.
 */
const SETTLED_MS = 1_500;
/** How far the clocks of mark and scheduler may have drifted apart, as a part of the time between. */
const DRIFT = 0.001;

/** Says on disk that a process of ours pauses a machine. */
interface Mark {
  /** Tells this program's watchdog from all others. */
  readonly owner: string;
  readonly writer: HostProcess;
  /** When it was made, ms since 1970. */
  readonly at: number;
}

function folder(): string {
  return path.join(runtimeDirectory(), 'pauses');
}

/** By the machine's process: a socket may have several names, and be another machine's later. */
function markOf({ pid, started }: HostProcess): string {
  return path.join(folder(), `qemu-${pid}-${started}`);
}

/** @param owner whoever is about to pause the machine */
export function markPause(machine: HostProcess, owner: string): void {
  const mark: Mark = { owner, writer: ownProcess(), at: Date.now() };
  const text = JSON.stringify(mark);
  try {
    writePrivate(markOf(machine), text);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    tidy();
    writePrivate(markOf(machine), text);
  }
}

/** Makes the folder, or sees that it is ours, and takes away marks of machines that are no more. */
export function tidy(): void {
  makePrivate(folder());
  for (const name of readdirSync(folder())) {
    const [, pid, started] = /^(?:qemu|frozen)-(\d+)-(\d+)$/.exec(name) ?? [];
    if (pid === undefined || isAlive({ pid: Number(pid), started: Number(started) })) continue;
    rmSync(path.join(folder(), name), { force: true });
  }
}

/** Takes the mark away, if it is still the owner's: the machine runs again. */
export function unmarkPause(machine: HostProcess, owner: string): void {
  if (isMarkedBy(machine, owner)) rmSync(markOf(machine), { force: true });
}

/** Whether nobody has paused the machine since `owner` did. */
export function isMarkedBy(machine: HostProcess, owner: string): boolean {
  return readMark(machine)?.owner === owner;
}

/**
 * Whether the pause that a machine is in is one that a dead process of ours left. Its vCPUs have not run since then: a
 * machine that somebody resumed and paused again is theirs, and stays paused. Where the kernel does not tell when a thread
 * ran last, it counts as theirs.
 * @param vcpus threads of the machine
 */
export function isLeftPaused(machine: HostProcess, vcpus: readonly number[]): boolean {
  const mark = readMark(machine);
  if (mark === undefined || isAlive(mark.writer) || vcpus.length === 0) return false;
  const now = lastRan('thread-self');
  const age = Date.now() - mark.at;
  if (now === undefined || age < 0) return false;
  return vcpus.every((thread) => {
    const then = lastRan(thread);
    return then !== undefined && now - then >= age * (1 - DRIFT) - SETTLED_MS;
  });
}

function readMark(machine: HostProcess): Mark | undefined {
  try {
    const mark = JSON.parse(readFileSync(markOf(machine), 'utf8'));
    return typeof mark?.owner === 'string' && typeof mark.at === 'number' && mark.writer ? mark : undefined;
  } catch {
    return undefined;
  }
}
