import { randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeDurably } from '../durable-write.ts';
import { DomschedError } from '../error.ts';
import { type HostProcess, isAlive, ownProcess } from '../host-process.ts';
import { requireCapabilities } from '../hypervisor/capability.ts';
import { FrameBatch } from '../hypervisor/frame-batch.ts';
import type { Domain, DomainWith, LocatedWrite, PauseGuard } from '../hypervisor/types.ts';
import { JournalHealth } from '../journal-health.ts';
import { makePrivate, runtimeDirectory } from '../runtime-directory.ts';
import type { AfterCommit } from './write-words.ts';

/** How often, and how long each time, we wait for another process to finish its edit, which takes some ms. */
const PEER_ATTEMPTS = 20;
const PEER_RETRY_MS = 50;
/** More than a release's record takes: about a hundred words, in hex. */
const RESERVE_BYTES = 64 * 1024;

/** Bytes of the domain's memory, in hex. */
export interface LoggedBytes {
  readonly frame: number;
  readonly offset: number;
  readonly bytes: string;
}

/** An edit that is about to be written. */
export interface LoggedEdit {
  /** Id of the domain. */
  readonly domain: string;
  readonly title: string;
  readonly words: readonly LocatedWrite[];
  /** Words that the guest's schedulers and clocks change as soon as it runs. */
  readonly still: readonly LoggedBytes[];
}

/** Where edits that are being written are recorded. */
export interface EditRecords {
  /**
   * Records an edit. @returns a function that deletes the record
   * @throws DomschedError `journal-failed`; then nothing may be written to the guest
   */
  begin(edit: LoggedEdit): AfterCommit;
  /**
   * Reserves the room that a release's record will need.
   * @throws DomschedError `journal-failed`; then nothing may be held
   */
  reserve(): void | Promise<void>;
  /** See {@link recover}. */
  recover(domain: Domain): Promise<Recovery>;
}

interface EditRecord {
  readonly domain: string;
  readonly title: string;
  /** The process that makes the edit: while it lives, the edit is under way and not abandoned. */
  readonly writer?: HostProcess | undefined;
  readonly writes: readonly { frame: number; offset: number; old: string; new: string }[];
  /** Words that the guest's schedulers and clocks change as soon as it runs. */
  readonly still: readonly LoggedBytes[];
}

/**
 * Records on disk the edit that is being written. If we are killed between its first byte and its last check, the
 * domain stays paused and {@link recover} restores the old bytes, so half an edit never runs.
 *
 * Everything here is synchronous: the domain is paused meanwhile, and a turn of the event loop costs more than a write
 * to the run-time files, which are in memory.
 */
export class EditLog implements EditRecords {
  readonly directory: string;
  readonly #health: JournalHealth;

  constructor(directory = path.join(runtimeDirectory(), 'edits'), health = new JournalHealth()) {
    this.directory = directory;
    this.#health = health;
  }

  begin(edit: LoggedEdit): AfterCommit {
    return this.#told(() => this.#begin(edit));
  }

  recover(domain: Domain): Promise<Recovery> {
    return recover(domain, this);
  }

  #begin({ domain, title, words, still }: LoggedEdit): AfterCommit {
    // Each time, because a clean-up of run-time files may have removed it since the last edit.
    makePrivate(this.directory);
    const record: EditRecord = {
      domain,
      title,
      writer: ownProcess(),
      writes: words.map((word) => ({ ...word, old: hex(word.old), new: hex(word.new) })),
      still,
    };
    // Unique even across dead processes, so an unrecovered record is never overwritten. Written atomically: other
    // domsched processes read every record.
    const file = path.join(this.directory, `${randomUUID()}.json`);
    const text = JSON.stringify(record);
    try {
      this.#writeWhole(file, text);
    } catch (error) {
      if (!this.#writeIntoReserve(file, text)) throw error;
      return () => this.#reserveAgain(file);
    }
    return () => removeIfPossible(file);
  }

  reserve(): void {
    if (existsSync(this.#reserve)) return;
    this.#told(() => {
      makePrivate(this.directory);
      this.#writeWhole(this.#reserve, ' '.repeat(RESERVE_BYTES));
    });
  }

  #told<T>(write: () => T): T {
    try {
      const written = write();
      this.#health.works(this.directory);
      return written;
    } catch (error) {
      throw this.#health.failed(this.directory, error);
    }
  }

  get #reserve(): string {
    return path.join(this.directory, `${process.pid}.reserve`);
  }

  #writeWhole(file: string, text: string): void {
    const unfinished = path.join(this.directory, `${process.pid}.new`);
    try {
      writeDurably(unfinished, 'w', text);
      renameSync(unfinished, file);
    } catch (error) {
      // The first failure explains what went wrong.
      removeIfPossible(unfinished);
      throw error;
    }
  }

  /** Writes over the reserved bytes and renames the file. @returns whether that was possible */
  #writeIntoReserve(file: string, text: string): boolean {
    const bytes = Buffer.byteLength(text);
    if (bytes > RESERVE_BYTES) return false;
    try {
      writeDurably(this.#reserve, 'r+', text + ' '.repeat(RESERVE_BYTES - bytes));
      renameSync(this.#reserve, file);
      return true;
    } catch {
      return false;
    }
  }

  #reserveAgain(file: string): void {
    try {
      renameSync(file, this.#reserve);
    } catch {
      removeIfPossible(file);
    }
  }

  /** Unfinished edits of one domain. */
  async pending(domain: string): Promise<{ file: string; record: EditRecord }[]> {
    const found: { file: string; record: EditRecord }[] = [];
    this.#tidy();
    for (const name of namesOf(this.directory)) {
      const file = path.join(this.directory, name);
      const record = await readRecord(file);
      if (record === undefined || record.domain === domain) found.push({ file, record: record! });
    }
    return found.filter(({ file, record }) => {
      if (record !== undefined) return true;
      // The record itself was cut short, so no byte of the guest was written.
      removeIfPossible(file);
      return false;
    });
  }

  /** Removes records that a process was killed while writing: nothing of their edits was done. */
  #tidy(): void {
    for (const name of entriesOf(this.directory)) {
      const [, pid] = /^(\d+)\.(?:new|reserve)$/.exec(name) ?? [];
      if (pid === undefined || Number(pid) === process.pid || existsSync(`/proc/${pid}`)) continue;
      removeIfPossible(path.join(this.directory, name));
    }
  }
}

/** What {@link recover} found. */
export type Recovery = 'nothing' | 'resumed' | 'undone';

/**
 * Repairs a domain after a domsched process was killed: undoes an edit that was being written, and resumes the domain
 * if it is still in that process's pause. Call it before anything else looks at the domain.
 * @throws DomschedError `edit-failed` if the old bytes cannot be restored, and the domain stays paused; `refused` while
 *   another process edits it
 */
export async function recover(domain: Domain, log: EditLog): Promise<Recovery> {
  if (domain.pause === undefined || domain.writeFrames === undefined) return 'nothing';
  const all = await waitForPeers(domain, log);
  const pending = all.filter(({ record }) => !isOfPeer(record));
  const forget = () => {
    for (const { file } of pending) removeIfPossible(file);
  };
  if ((await domain.state()) !== 'paused') {
    // The domain runs, so the edit was over or had not begun: a half-written edit keeps the domain paused.
    forget();
    return 'nothing';
  }
  requireCapabilities(domain, 'pause', 'writeFrames');
  const guard = await domain.pause.acquire();
  try {
    const half = pending.filter(({ record }) => record.still.every((piece) => isAt(domain, piece)));
    if (guard.foundPaused && half.length > 0) {
      throw failure(domain, half[0]!.record.title, 'whoever tried it last failed');
    }
    // Others may be of edits that were over before it last ran, and could not be removed from a disk that fails.
    if (guard.foundPaused || (half.length === 0 && pending.length > 0)) {
      // It ran in the meantime and somebody else paused it.
      if (!guard.foundPaused) guard.abandon();
      forget();
      return 'nothing';
    }
    if (half.length > 0) await undoAll(domain, guard, half);
    forget();
    return half.length > 0 ? 'undone' : 'resumed';
  } finally {
    await guard.release();
  }
}

/**
 * Whether another process is making this edit now. Our own process makes one edit of a domain at a time, after
 * recovery.
 */
function isOfPeer({ writer }: EditRecord): boolean {
  return writer !== undefined && writer.pid !== ownProcess().pid && isAlive(writer);
}

/**
 * Waits until no other domsched process edits the domain, and returns its unfinished edits. Some hypervisors (Xen) let
 * several processes work on one domain, and a domain in the middle of an edit needs no repair.
 * @throws DomschedError `refused` if a process does not finish its edit
 */
async function waitForPeers(domain: Domain, log: EditLog): Promise<{ file: string; record: EditRecord }[]> {
  for (let attempt = 0; ; attempt++) {
    const pending = await log.pending(domain.identity.id);
    const peer = pending.find(({ record }) => isOfPeer(record));
    if (peer === undefined || (await domain.state()) !== 'paused') return pending;
    if (attempt < PEER_ATTEMPTS) {
      await sleep(PEER_RETRY_MS);
      continue;
    }
    const { pid } = peer.record.writer!;
    throw new DomschedError(
      'refused',
      `${domain.identity.name} is being edited by process ${pid} ("${peer.record.title}"); try again when that is done`,
      { domain: domain.identity.name, pid },
    );
  }
}

/** Undoes edits under a pause that is proved as for any other edit. If that fails, the domain stays paused. */
async function undoAll(
  domain: DomainWith<'writeFrames'>,
  guard: PauseGuard,
  half: readonly { record: EditRecord }[],
): Promise<void> {
  guard.keepOnDeath(true);
  try {
    const before = await guard.prove();
    for (const { record } of half) undo(domain, record);
    const after = await guard.prove();
    if (after.generation !== before.generation || after.answers !== before.answers) {
      throw failure(domain, half[0]!.record.title, 'it did not stand still meanwhile');
    }
  } catch (error) {
    guard.abandon();
    throw error;
  }
  guard.keepOnDeath(false);
}

function undo(domain: DomainWith<'writeFrames'>, { title, writes }: EditRecord): void {
  const backwards = [...writes].reverse();
  const foreign = backwards.find(
    ({ frame, offset, old, new: wanted }) =>
      !isAt(domain, { frame, offset, bytes: old }) && !isAt(domain, { frame, offset, bytes: wanted }),
  );
  if (foreign !== undefined) throw failure(domain, title, 'a word of it is neither the old nor the new one');
  try {
    domain.writeFrames.write(
      backwards.map(({ frame, offset, old }) => ({ frame, offset, bytes: Buffer.from(old, 'hex') }) as never),
    );
  } catch (cause) {
    throw failure(domain, title, 'the old bytes could not be written', cause);
  }
  if (!writes.every(({ frame, offset, old }) => isAt(domain, { frame, offset, bytes: old }))) {
    throw failure(domain, title, 'the old bytes do not read back');
  }
}

function failure(domain: Domain, title: string, why: string, cause?: unknown): DomschedError {
  const { name } = domain.identity;
  return new DomschedError(
    'edit-failed',
    `${name} stands in the middle of "${title}", which cannot be undone: ${why}; ` +
      'it stays paused: destroy it or go back to a snapshot',
    { domain: name, title },
    { cause },
  );
}

function isAt(domain: Domain, { frame, offset, bytes }: LoggedBytes): boolean {
  const wanted = Buffer.from(bytes, 'hex');
  const batch = new FrameBatch();
  batch.add(frame as never, offset, wanted.length);
  if (domain.frames.read(batch) > 0) return false;
  return wanted.equals(batch.bytes.subarray(batch.positions[0]!, batch.positions[0]! + wanted.length));
}

async function readRecord(file: string): Promise<EditRecord | undefined> {
  try {
    const { EDIT_RECORD } = await import('./log-schema.ts');
    return EDIT_RECORD.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return undefined;
  }
}

/**
 * On a disk that fails, the record of an edit that is over stays. That is no harm: the guest has run since, by which
 * {@link recover} knows it.
 */
function removeIfPossible(file: string): void {
  try {
    rmSync(file, { force: true });
  } catch {
    // See above.
  }
}

function namesOf(directory: string): string[] {
  return entriesOf(directory).filter((name) => name.endsWith('.json'));
}

function entriesOf(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
