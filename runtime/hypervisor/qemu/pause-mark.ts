import { readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { type HostProcess, isAlive, ownProcess } from '../../host-process.ts';
import { journalFailed } from '../../journal-health.ts';
import { makePrivate, overwritePrivate, runtimeDirectory } from '../../runtime-directory.ts';
import { lastRan } from '../thread-clock.ts';

/**
 * The machine may run for this long after the mark was made: until it stops, and while its registers are read. If it
 * ran later, somebody has resumed it since, and its present pause is not ours.
 */
const SETTLED_MS = 1_500;
/** From this age on a mark is made anew when the machine's vCPUs have done something under the pause. */
export const MARK_AGES_MS = SETTLED_MS / 3;
/** Content of a file that says that a process of ours pauses a machine. */
interface Mark {
  /** Identifies this program's watchdog. */
  readonly owner: string;
  readonly writer: HostProcess;
  /**
   * When each thread that runs a CPU of the machine had last run, by its id. Compared with the same thread's alone: each
   * of the host's CPUs has a clock of its own for this, which leaves out what interrupts and a hypervisor below took.
   */
  readonly ran: Readonly<Record<string, number>>;
}

/** Where marks and tables are. */
export function marksFolder(): string {
  return path.join(runtimeDirectory(), 'pauses');
}

/** The name has the machine's process, because a socket may have several names and later be another machine's. */
function markOf({ pid, started }: HostProcess): string {
  return path.join(marksFolder(), `qemu-${pid}-${started}`);
}

/**
 * The first mark of a machine needs room on the disk, and later ones write over it: whoever was held by a pause can be
 * let go by one.
 * @param vcpus threads of the machine that run its CPUs
 * @param owner whose pause it will be
 * @throws DomschedError `journal-failed`, `refused` as {@link makePrivate}; then the machine may not be paused
 */
export function markPause(machine: HostProcess, vcpus: readonly number[], owner: string): void {
  const mark: Mark = { owner, writer: ownProcess(), ran: allRan(vcpus) };
  written(() => {
    const text = JSON.stringify(mark);
    try {
      overwritePrivate(markOf(machine), text);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      tidy();
      overwritePrivate(markOf(machine), text);
    }
  });
}

function allRan(vcpus: readonly number[]): Record<string, number> {
  return Object.fromEntries(
    vcpus.flatMap((thread) => {
      const ran = lastRan(thread);
      return ran === undefined ? [] : [[thread, Math.round(ran)]];
    }),
  );
}

function written(write: () => void): void {
  try {
    write();
  } catch (cause) {
    throw journalFailed(
      marksFolder(),
      `pauses cannot be noted in ${marksFolder()}, so no machine is paused`,
      cause,
    );
  }
}

/**
 * Makes the folder, or checks that it is ours, and removes marks of machines that have ended.
 * @throws DomschedError `journal-failed`, `refused` as {@link makePrivate}
 */
export function tidy(): void {
  written(removeOld);
}

function removeOld(): void {
  makePrivate(marksFolder());
  for (const name of readdirSync(marksFolder())) {
    // A table of a dead process says no more than its marks.
    const [, pid, started] = /^(?:qemu|frozen|table-qemu)-(\d+)-(\d+)(?:-[0-9a-f-]+)?$/.exec(name) ?? [];
    if (pid === undefined || isAlive({ pid: Number(pid), started: Number(started) })) continue;
    rmSync(path.join(marksFolder(), name), { force: true });
  }
}

/** Makes the mark nobody's if it still has this owner: the machine runs again. */
export function unmarkPause(machine: HostProcess, owner: string): void {
  if (!isMarkedBy(machine, owner)) return;
  try {
    overwritePrivate(markOf(machine), '{}');
  } catch {
    // On a disk that fails: a mark of a machine that has run since is no longer believed.
  }
}

/**
 * Marks a pause that a dead process left as that again: it could not be taken over, and the machine still stands.
 * @param writer the dead process
 */
export function markLeft(machine: HostProcess, vcpus: readonly number[], writer: HostProcess): void {
  try {
    overwritePrivate(
      markOf(machine),
      JSON.stringify({ owner: '', writer, ran: allRan(vcpus) } satisfies Mark),
    );
  } catch {
    // On a disk that fails: the caller's error tells of it.
  }
}

/** Whether nobody has paused the machine since `owner` did. */
export function isMarkedBy(machine: HostProcess, owner: string): boolean {
  return readMark(machine)?.owner === owner;
}

/**
 * The dead process of ours that left the machine's present pause: then its vCPUs have not run since. A machine that
 * somebody resumed and paused again is theirs and stays paused. If the kernel does not tell when a thread last ran, the
 * pause counts as theirs.
 * @param vcpus threads of the machine
 */
export function leftPausedBy(machine: HostProcess, vcpus: readonly number[]): HostProcess | undefined {
  const mark = readMark(machine);
  if (mark === undefined || isAlive(mark.writer) || vcpus.length === 0) return undefined;
  const stands = vcpus.every((thread) => {
    const [before, now] = [mark.ran[thread], lastRan(thread)];
    // Earlier than the mark: it has run since, on a CPU whose clock is behind.
    return before !== undefined && now !== undefined && Math.abs(now - before) <= SETTLED_MS;
  });
  return stands ? mark.writer : undefined;
}

function readMark(machine: HostProcess): Mark | undefined {
  try {
    const mark = JSON.parse(readFileSync(markOf(machine), 'utf8'));
    return typeof mark?.owner === 'string' && typeof mark.ran === 'object' && mark.writer ? mark : undefined;
  } catch {
    return undefined;
  }
}
