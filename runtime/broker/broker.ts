import { closeSync } from 'node:fs';
import type { z } from 'zod';
import type { EditRecords } from '../edit/log.ts';
import { PAUSE_ENDS, writeWords } from '../edit/write-words.ts';
import { DomschedError } from '../error.ts';
import { hostProcess } from '../host-process.ts';
import { requireCapabilities } from '../hypervisor/capability.ts';
import { FRAME_STATUS, FrameBatch } from '../hypervisor/frame-batch.ts';
import type { Domain, LocatedWrite, PauseGuard, PauseUse } from '../hypervisor/types.ts';
import type { MachineProcess } from '../hypervisor/vmm/machine-process.ts';
import type { JournalHealth } from '../journal-health.ts';
import type { ChangeRecord, HeldRecord } from '../surgeon/journal.ts';
import type { RecordStore } from '../surgeon/records.ts';
import type { Machines } from './machines.ts';
import {
  type BrokerAnswers,
  type BrokerRequest,
  MOST_MACHINES,
  MOST_RECORDS,
  MOST_REQUESTS,
  NUMBERED,
  REQUEST,
  type RequestOf,
} from './protocol.ts';

/** A reader that asks for nothing in a pause for so long stands still itself. */
export const SILENCE_MS = 2_000;
/** Longest pause, whatever is asked for in it. */
export const LONGEST_PAUSE_MS = 10_000;

/** What we do to guests is written down here, as without a broker. */
export interface BrokerJournals {
  readonly held: RecordStore<HeldRecord>;
  readonly changes: RecordStore<ChangeRecord>;
  readonly edits: EditRecords;
  readonly health: JournalHealth;
}

/** A machine that the reader has opened. */
interface OpenMachine {
  readonly number: number;
  readonly process: MachineProcess;
  domain: Domain | undefined;
  guard: PauseGuard | undefined;
  use: PauseUse;
  pausedMs: number;
  askedMs: number;
  /** Requests are answered one after the other. */
  lane: Promise<unknown>;
  waiting: number;
}

type AnyAnswer = BrokerAnswers[keyof BrokerAnswers];

/**
 * Has the privileges, and takes orders of a process that has none and may have been taken over by what it reads. It opens
 * machines, pauses them and writes whole edits, and believes nothing but what it sees itself: which machines there are,
 * where their memory is, that they stand still, and which words are in their memory.
 */
export class Broker {
  readonly #machines: Machines;
  readonly #journals: BrokerJournals;
  readonly #hand: (machine: number, descriptors: readonly number[]) => void;
  readonly #now: () => number;
  readonly #open = new Map<number, OpenMachine>();
  /** Records of each kind, if they were counted. */
  readonly #counts = new Map<string, number>();
  /** What is done with records is done one after the other: a list of all is long. */
  #recordLane: Promise<unknown> = Promise.resolve();
  #last = 0;
  #requests = 0;
  #closed = false;

  /** @param hand hands descriptors to the reader */
  constructor(
    machines: Machines,
    journals: BrokerJournals,
    hand: (machine: number, descriptors: readonly number[]) => void,
    now: () => number = () => performance.now(),
  ) {
    this.#machines = machines;
    this.#journals = journals;
    this.#hand = hand;
    this.#now = now;
  }

  /** Answers one line. Whatever it is, there is an answer, and nothing but an error of ours is told. */
  async answer(line: string): Promise<string> {
    let id = 0;
    try {
      const { id: number, ...asked } = read(NUMBERED, parsed(line));
      id = number;
      if (this.#requests >= MOST_REQUESTS) throw new DomschedError('protocol', 'too much is asked at once');
      this.#requests += 1;
      try {
        return JSON.stringify({ id, value: await this.#do(read(REQUEST, asked)) });
      } finally {
        this.#requests -= 1;
      }
    } catch (error) {
      const { code, message, details } =
        error instanceof DomschedError
          ? error
          : { code: 'protocol', message: `the broker failed: ${String(error)}`, details: {} };
      return JSON.stringify({
        id,
        error: { code, message, details: JSON.parse(JSON.stringify(details, plain)) },
      });
    }
  }

  /** Ends pauses of a reader that does not go on. Call it often. */
  async endSilent(): Promise<void> {
    const now = this.#now();
    const ends = [...this.#open.values()].map((machine) => {
      const { guard, waiting, askedMs, pausedMs } = machine;
      const isSilent = waiting === 0 && now - askedMs >= SILENCE_MS;
      if (guard === undefined || !(isSilent || now - pausedMs >= LONGEST_PAUSE_MS)) return undefined;
      // In its turn: an edit is never left in the middle, and who asks without end has no more answered than waits now.
      machine.lane = machine.lane
        .catch(() => undefined)
        .then(() => (machine.guard === guard ? this.#resume(machine) : undefined));
      return machine.lane;
    });
    await Promise.allSettled(ends);
  }

  /** Ends all pauses: the reader has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    // What is being done is done first; an edit is never left in the middle.
    const all = [...this.#open.values()].map(async (machine) => {
      await machine.lane.catch(() => undefined);
      await this.#letGo(machine);
    });
    this.#open.clear();
    await Promise.allSettled(all);
  }

  async #do(request: BrokerRequest): Promise<AnyAnswer> {
    switch (request.op) {
      case 'list':
        return this.#machines.list();
      case 'open':
        return this.#openMachine(request.pid);
      case 'reserve':
        await this.#journals.edits.reserve();
        return null;
      case 'probe':
        this.#journals.health.probe();
        if (this.#journals.health.failure !== undefined) throw this.#journals.health.failure;
        return null;
      case 'records':
      case 'record':
      case 'forget':
        return this.#inRecordLane(() => this.#doToRecords(request));
      default:
        return this.#inTurn(request.machine, (machine) => this.#doTo(machine, request));
    }
  }

  async #doToRecords(request: RequestOf<'records' | 'record' | 'forget'>): Promise<AnyAnswer> {
    switch (request.op) {
      case 'records':
        return this.#store(request.journal).list();
      case 'record':
        await this.#record(request);
        return null;
      case 'forget':
        requireDomain(request.record);
        await this.#store(request.journal).remove(request.record);
        // Counted anew.
        this.#counts.delete(request.journal);
        return null;
    }
  }

  #inRecordLane<T>(step: () => Promise<T>): Promise<T> {
    const run = this.#recordLane.then(step);
    this.#recordLane = run.catch(() => undefined);
    return run;
  }

  async #doTo(
    machine: OpenMachine,
    request: Extract<BrokerRequest, { machine: number }>,
  ): Promise<AnyAnswer> {
    switch (request.op) {
      case 'place':
        return this.#place(machine, request);
      case 'state':
        return placed(machine).state();
      case 'pause':
        return this.#pause(machine, request.use);
      case 'prove':
        return (await guardOf(machine).prove()).answers;
      case 'resume':
        await this.#resume(machine);
        return null;
      case 'edit':
        await this.#edit(machine, request);
        return null;
      case 'close':
        this.#open.delete(machine.number);
        await this.#letGo(machine);
        return null;
    }
  }

  async #inTurn<T>(number: number, step: (machine: OpenMachine) => Promise<T>): Promise<T> {
    const machine = this.#open.get(number);
    if (machine === undefined || this.#closed) {
      throw new DomschedError('domain-not-found', `there is no machine ${number} that was opened`, {});
    }
    machine.waiting += 1;
    const run = machine.lane.catch(() => undefined).then(() => step(machine));
    machine.lane = run;
    try {
      return await run;
    } finally {
      machine.waiting -= 1;
      machine.askedMs = this.#now();
    }
  }

  #openMachine(pid: number): BrokerAnswers['open'] {
    if (this.#open.size >= MOST_MACHINES)
      throw new DomschedError('refused', 'too many machines are open', { pid });
    const { process, descriptors } = this.#machines.open(pid);
    this.#last += 1;
    try {
      this.#hand(this.#last, descriptors);
    } finally {
      for (const fd of descriptors) closeSync(fd);
    }
    const number = this.#last;
    this.#open.set(number, {
      number,
      process,
      domain: undefined,
      guard: undefined,
      use: 'look',
      pausedMs: 0,
      askedMs: this.#now(),
      lane: Promise.resolve(),
      waiting: 0,
    });
    return { machine: number, process };
  }

  async #place(machine: OpenMachine, { blocks, low }: RequestOf<'place'>): Promise<BrokerAnswers['place']> {
    if (machine.domain !== undefined) throw new DomschedError('refused', 'its memory is placed already', {});
    const domain = this.#machines.place(machine.process, { blocks, low });
    try {
      requireCapabilities(domain, 'pause', 'writeFrames');
      const recovery = await this.#journals.edits.recover(domain);
      machine.domain = domain;
      return {
        recovery,
        endsWithUs: domain.pause.endsWithUs ?? false,
        way: domain.pause.way ?? null,
        lacksBranchTracking: domain.lacksBranchTracking ?? false,
      };
    } finally {
      if (machine.domain !== domain) await domain.close();
    }
  }

  async #pause(machine: OpenMachine, use: PauseUse): Promise<BrokerAnswers['pause']> {
    const domain = placed(machine);
    if (machine.guard !== undefined) throw new DomschedError('refused', 'it is paused already', {});
    const guard = await domain.pause.acquire(use);
    machine.guard = guard;
    machine.use = use;
    machine.pausedMs = this.#now();
    return { foundPaused: guard.foundPaused };
  }

  async #resume(machine: OpenMachine): Promise<void> {
    const { guard } = machine;
    machine.guard = undefined;
    await guard?.release();
  }

  /** Ends its pause and closes it; if the one fails, the other ends all pauses that there are. */
  async #letGo(machine: OpenMachine): Promise<void> {
    try {
      await this.#resume(machine);
    } finally {
      await machine.domain?.close();
    }
  }

  async #edit(
    machine: OpenMachine,
    { title, words, still, harmlessInParts }: RequestOf<'edit'>,
  ): Promise<void> {
    const domain = placed(machine);
    const guard = guardOf(machine);
    const { name, id } = domain.identity;
    if (machine.use === 'look') {
      throw new DomschedError('edit-conflict', `${name} is paused for a look only; try again`, {});
    }
    if (guard.endsWithUs && !harmlessInParts) {
      throw new DomschedError('refused', `${title}: ${name} ${PAUSE_ENDS}; nothing was written`, {
        edit: title,
      });
    }
    const located = words.map((word) => ({ ...word, old: bytesOf(word.old), new: bytesOf(word.new) }));
    expectApart(title, located);
    const edit = { title, writes: words, ...(harmlessInParts && { harmlessInParts }) };
    const begin = async () => this.#journals.edits.begin({ domain: id, title, words: located, still });
    await writeWords(domain, guard, edit, located, begin, {
      justBefore: () => expectWords(domain, words, 'old'),
      written: () => expectWords(domain, words, 'new'),
      restored: () => expectWords(domain, words, 'old'),
    });
  }

  #store(journal: 'held' | 'changed'): RecordStore<HeldRecord | ChangeRecord> {
    const { held, changes } = this.#journals;
    return (journal === 'held' ? held : changes) as RecordStore<HeldRecord | ChangeRecord>;
  }

  /** What is written down is read by root, who goes to the machine that it names: it has to be one that is open. */
  async #record({ journal, record }: RequestOf<'record'>): Promise<void> {
    const of = requireDomain(record);
    const machine = [...this.#open.values()].find(({ process }) => process.pid === of);
    const isKind = journal === 'held' ? !('kind' in record) : 'kind' in record && record.kind === 'nice';
    const isOfMachine =
      machine !== undefined &&
      'machine' in record &&
      record.machine?.pid === machine.process.pid &&
      record.machine.started === machine.process.started &&
      record.name === machine.process.name;
    if (!isKind || !isOfMachine)
      throw new DomschedError('refused', 'this is no record of a machine that is open', {});
    const store = this.#store(journal);
    // Not each time: a machine stands still while its record is written.
    const count = this.#counts.get(journal) ?? (await store.list()).length;
    this.#counts.set(journal, count + 1);
    if (count >= MOST_RECORDS) throw new DomschedError('refused', 'there are too many records', {});
    await store.add(record);
  }
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw new DomschedError('protocol', 'the broker was sent no JSON', {});
  }
}

/** @throws DomschedError `protocol` */
function read<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const message = `the broker was asked wrongly: ${issue?.path.map(String).join('.')}: ${issue?.message}`;
  throw new DomschedError('protocol', message.slice(0, 500), {});
}

/** @returns the process of the machine that a record is of @throws DomschedError `refused` */
function requireDomain({ domain, connection }: HeldRecord | ChangeRecord): number {
  const [, pid] = /^pid:([1-9]\d{0,9})$/.exec(domain) ?? [];
  if (pid !== undefined && connection === domain) return Number(pid);
  throw new DomschedError('refused', 'this is no record of a machine that is found by its process', {});
}

function placed(machine: OpenMachine): Domain & Required<Pick<Domain, 'pause' | 'writeFrames'>> {
  const { domain, process } = machine;
  const alive = hostProcess(process.pid)?.started === process.started;
  if (!alive && domain !== undefined && domain.identity.pid !== undefined) {
    throw new DomschedError('domain-gone', `${process.name} has ended`, { domain: process.name });
  }
  if (domain === undefined) throw new DomschedError('refused', 'its memory is not placed yet', {});
  requireCapabilities(domain, 'pause', 'writeFrames');
  return domain;
}

function guardOf({ guard, process: { name } }: OpenMachine): PauseGuard {
  if (guard?.valid) return guard;
  const message = `${name} is not paused any more: domsched was silent for too long, or somebody resumed it`;
  throw new DomschedError('edit-conflict', message, { domain: name, again: true });
}

function bytesOf(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}

/** No two words of an edit may overlap. */
function expectApart(title: string, words: readonly LocatedWrite[]): void {
  const seen = new Set<string>();
  for (const { frame, offset, old } of words) {
    for (let i = 0; i < old.length; i++) {
      const key = `${frame}+${offset + i}`;
      if (seen.has(key))
        throw new DomschedError('refused', `${title}: two words overlap; nothing was written`, {});
      seen.add(key);
    }
  }
}

/** @throws DomschedError `frame-unmapped`, `edit-conflict` */
function expectWords(domain: Domain, words: RequestOf<'edit'>['words'], which: 'old' | 'new'): void {
  const batch = new FrameBatch();
  for (const { frame, offset, old } of words) batch.add(frame as never, offset, old.length / 2);
  domain.frames.read(batch);
  for (const [index, { frame, offset, [which]: wanted }] of words.entries()) {
    if (batch.status[index] !== FRAME_STATUS.ok) {
      const message = `frame ${frame} is not RAM of ${domain.identity.name}`;
      throw new DomschedError('frame-unmapped', message, { frame, index });
    }
    const position = batch.positions[index]!;
    const found = Buffer.from(batch.bytes.subarray(position, position + wanted.length / 2)).toString('hex');
    if (found === wanted) continue;
    const message = `the word at ${offset} of frame ${frame} is not the ${which} one`;
    throw new DomschedError('edit-conflict', message, { frame, offset, index });
  }
}

/** JSON has no bigint. */
function plain(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  return value instanceof Error ? value.message : value;
}
