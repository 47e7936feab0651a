import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { DomschedError } from '../../error.ts';
import { type HostProcess, isAlive, ownProcess } from '../../host-process.ts';
import { makePrivate, overwritePrivate, runtimeDirectory } from '../../runtime-directory.ts';
import { GROUPS, type GroupFiles, type OwnGroup, ownGroup } from '../qemu/own-group.ts';

/** File that freezes a group, and the values to write (Linux admin-guide/cgroup-v1/freezer-subsystem, cgroup-v2). */
const KNOBS = {
  1: { file: 'freezer.state', frozen: 'FROZEN', thawed: 'THAWED' },
  2: { file: 'cgroup.freeze', frozen: '1', thawed: '0' },
} as const;
const FILES: GroupFiles = {
  v1: { controller: 'freezer', file: KNOBS[1].file },
  v2: { file: KNOBS[2].file },
};

/** Who has frozen a machine. */
export type FrozenBy =
  | 'nobody'
  /** A living process of ours, during an edit. */
  | 'peer'
  /** A process of ours that was killed in the middle of an edit. */
  | 'dead'
  | 'others';

/**
 * The freezer of a machine's own control group: a pause that outlives us. It stops all threads of the machine, also
 * those that answer its manager, so it is used only while an edit is written that must not be left half done.
 *
 * The threads that we trace stand already. If they are frozen as well, they do not go on when we are killed and the
 * kernel detaches them. A file records that we froze the machine; the next process of ours takes the edit back and then
 * lets the machine go on.
 */
export class Freezer {
  readonly directory: string;
  readonly #machine: HostProcess;
  readonly #knob: string;
  readonly #words: (typeof KNOBS)[1 | 2];
  readonly #mark: string;
  /** Looks for the group again, because another process may have been moved into it, or the machine out of it. */
  readonly #find: () => OwnGroup | undefined;

  private constructor(
    machine: HostProcess,
    { directory, version }: OwnGroup,
    find: () => OwnGroup | undefined,
  ) {
    this.directory = directory;
    this.#find = find;
    this.#machine = machine;
    this.#words = KNOBS[version];
    this.#knob = path.join(directory, this.#words.file);
    this.#mark = path.join(runtimeDirectory(), 'pauses', `frozen-${machine.pid}-${machine.started}`);
  }

  /**
   * @param root mount point of control groups; a test has its own, and its own `membership` of the process in them
   * @returns undefined for a machine that has no group of its own, because others would be frozen with it
   */
  static of(machine: HostProcess, root = GROUPS, membership?: string): Freezer | undefined {
    const find = () => ownGroup(machine.pid, FILES, root, membership);
    const group = find();
    return group === undefined ? undefined : new Freezer(machine, group, find);
  }

  by(): FrozenBy {
    const state = textOf(this.#knob);
    if (state === this.#words.thawed || state === '') return 'nobody';
    const writer = this.#writer();
    if (writer === undefined) return 'others';
    return isAlive(writer) ? 'peer' : 'dead';
  }

  /**
   * Freezes the machine. Its traced threads do not run again before it is thawed, whichever process dies.
   * @throws DomschedError `refused` when the kernel does not do it, or somebody else has done it; then we freeze nothing,
   *   and thaw nothing of theirs
   */
  freeze(): void {
    if (this.#find()?.directory !== this.directory) throw this.#cannot('it has no group to itself any more');
    if (this.by() !== 'nobody') throw this.#cannot('somebody else has frozen it');
    try {
      makePrivate(path.dirname(this.#mark));
      overwritePrivate(this.#mark, JSON.stringify(ownProcess()));
    } catch (cause) {
      this.forget();
      throw this.#cannot((cause as Error).message, cause);
    }
    try {
      writeFileSync(this.#knob, this.#words.frozen);
    } catch (cause) {
      this.thaw();
      throw this.#cannot((cause as Error).message, cause);
    }
  }

  #cannot(why: string, cause?: unknown, what: 'frozen' | 'thawed' = 'frozen'): DomschedError {
    const message = `the control group ${this.directory} cannot be ${what}: ${why}`;
    return new DomschedError(
      'refused',
      message,
      { pid: this.#machine.pid, group: this.directory },
      { cause },
    );
  }

  /** Lets the machine go on, and forgets that we froze it. */
  thaw(): void {
    try {
      writeFileSync(this.#knob, this.#words.thawed);
    } catch (cause) {
      // A machine that has ended no longer has a group.
      if (isAlive(this.#machine)) throw this.#cannot((cause as Error).message, cause, 'thawed');
    }
    this.forget();
  }

  /** Leaves it as it is but no longer ours, so that an operator can look at it. */
  forget(): void {
    // Nobody's from here on. The file stays, because the next freeze may have to do without room on the disk.
    try {
      if (this.#writer() !== undefined) overwritePrivate(this.#mark, '{}');
    } catch {
      // On a disk that fails: a mark of a machine that is not frozen says nothing.
    }
  }

  /** Command for an operator to let it go on. */
  get advice(): string {
    return `echo ${this.#words.thawed} > ${this.#knob}`;
  }

  #writer(): HostProcess | undefined {
    try {
      const { pid, started } = JSON.parse(readFileSync(this.#mark, 'utf8'));
      return Number.isSafeInteger(pid) && Number.isSafeInteger(started) ? { pid, started } : undefined;
    } catch {
      return undefined;
    }
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'latin1').trim();
  } catch {
    return '';
  }
}
