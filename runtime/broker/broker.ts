import { closeSync } from 'node:fs';
import type { z } from 'zod';
import type { EditRecords } from '../edit/log.ts';
import { PAUSE_ENDS, writeWords } from '../edit/write-words.ts';
import { DomschedError } from '../error.ts';
import { isAlive } from '../host-process.ts';
import { requireCapabilities } from '../hypervisor/capability.ts';
import { FRAME_STATUS, FrameBatch } from '../hypervisor/frame-batch.ts';
import type { Domain, LocatedWrite, PauseGuard, PauseUse } from '../hypervisor/types.ts';
import type { JournalHealth } from '../journal-health.ts';
import type { ChangeRecord, HeldRecord } from '../surgeon/journal.ts';
import type { RecordStore } from '../surgeon/records.ts';
import type { Machines, OpenedMachine } from './machines.ts';
import {
  afterPause,
  BURST_MS,
  LONGEST_PAUSE_MS,
  NEVER_STOOD,
  PAUSED_PART,
  runsFirstMs,
  type Stood,
} from './pause-budget.ts';
import {
  type BrokerAnswers,
  type BrokerRequest,
  type FAILURE,
  MOST_MACHINES,
  MOST_RECORDS,
  MOST_REQUESTS,
  NUMBERED,
  REQUEST,
  type RequestOf,
} from './protocol.ts';

/** A reader that asks for nothing in a pause for so long stands still itself. */
export const SILENCE_MS = 2_000;

/** After so long a machine has worked off all that it stood. */
const FORGOTTEN_MS = (BURST_MS + LONGEST_PAUSE_MS) / PAUSED_PART;

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
  readonly opened: OpenedMachine;
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
  readonly #places: readonly Machines[];
  readonly #journals: BrokerJournals;
  readonly #hand: (machine: number, descriptors: readonly number[]) => void;
  readonly #now: () => number;
  readonly #open = new Map<number, OpenMachine>();
  /** Machines that are being opened, which takes a while where QEMU is asked. */
  readonly #opening = new Set<string>();
  /** Lists that are being made, by place. */
  readonly #lists = new Map<Machines, Promise<BrokerAnswers['list']>>();
  /** How long machines have stood, by their processes: also of those that were closed and may be opened again. */
  readonly #stood = new Map<string, Stood>();
  /** Records of each kind, if they were counted. */
  readonly #counts = new Map<string, number>();
  /** What is done with records is done one after the other: a list of all is long. */
  #recordLane: Promise<unknown> = Promise.resolve();
  #last = 0;
  #requests = 0;
  #closed = false;

  /**
   * @param places where the reader may look for machines
   * @param hand hands descriptors to the reader
   */
  constructor(
    places: readonly Machines[],
    journals: BrokerJournals,
    hand: (machine: number, descriptors: readonly number[]) => void,
    now: () => number = () => performance.now(),
  ) {
    this.#places = places;
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
      return JSON.stringify({ id, error: failureOf(error) });
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
      case 'ids':
        return this.#placeOf(request.host).ids();
      case 'list':
        return this.#list(this.#placeOf(request.host));
      case 'open':
        return this.#openMachine(this.#placeOf(request.host), request.domain);
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
        this.#requireOurs(request.record);
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
        return this.#place(machine, request.where);
      case 'changes':
        return changesOf(machine, request.ram);
      case 'registers':
        placed(machine);
        return monitorOf(machine).registersText();
      case 'state':
        return placed(machine).state();
      case 'standing':
        return (await placed(machine).standing?.()) ?? null;
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

  #placeOf(host: number): Machines {
    const place = this.#places[host];
    if (place !== undefined) return place;
    throw new DomschedError('domain-not-found', `there is no place ${host} for machines`, {});
  }

  /** Whoever asks meanwhile gets the same answer: QEMU serves one client for each socket. */
  #list(place: Machines): Promise<BrokerAnswers['list']> {
    const before = this.#lists.get(place);
    if (before !== undefined) return before;
    const list = place
      .list()
      .then((all) =>
        all.map((listing) => {
          if (!('error' in listing)) return listing;
          const { identity, error, standing = null } = listing;
          return { identity, failure: failureOf(error), standing };
        }),
      )
      .finally(() => this.#lists.delete(place));
    this.#lists.set(place, list);
    return list;
  }

  async #openMachine(place: Machines, id: string): Promise<BrokerAnswers['open']> {
    const isOpen = [...this.#open.values()].some(({ opened }) => opened.identity.id === id);
    if (isOpen || this.#opening.has(id)) {
      throw new DomschedError('refused', `${id} is open already`, { domain: id });
    }
    if (this.#closed || this.#open.size + this.#opening.size >= MOST_MACHINES)
      throw new DomschedError('refused', 'too many machines are open', { domain: id });
    this.#opening.add(id);
    try {
      return await this.#hold(await place.open(id));
    } finally {
      this.#opening.delete(id);
    }
  }

  async #hold(opened: OpenedMachine): Promise<BrokerAnswers['open']> {
    this.#last += 1;
    const number = this.#last;
    try {
      // The reader may have ended while QEMU was asked.
      if (this.#closed) throw new DomschedError('refused', 'the reader has ended', {});
      this.#hand(number, opened.descriptors);
    } catch (error) {
      await opened.close();
      throw error;
    } finally {
      for (const fd of opened.descriptors) closeSync(fd);
    }
    this.#open.set(number, {
      number,
      opened,
      domain: undefined,
      guard: undefined,
      use: 'look',
      pausedMs: 0,
      askedMs: this.#now(),
      lane: Promise.resolve(),
      waiting: 0,
    });
    return { machine: number, identity: opened.identity, process: opened.process ?? null };
  }

  async #place(machine: OpenMachine, where: RequestOf<'place'>['where']): Promise<BrokerAnswers['place']> {
    if (machine.domain !== undefined) throw new DomschedError('refused', 'its memory is placed already', {});
    const { opened } = machine;
    const domain = opened.place(where);
    try {
      requireCapabilities(domain, 'pause', 'writeFrames');
      const recovery = await this.#journals.edits.recover(domain);
      machine.domain = domain;
      const refusal = domain.editRefusal?.();
      return {
        recovery,
        endsWithUs: domain.pause.endsWithUs ?? false,
        way: domain.pause.way ?? null,
        lacksBranchTracking: domain.lacksBranchTracking ?? false,
        threads: opened.monitor?.threads ?? null,
        refusal: refusal === undefined ? null : failureOf(refusal),
      };
    } finally {
      if (machine.domain !== domain) await domain.close();
    }
  }

  async #pause(machine: OpenMachine, use: PauseUse): Promise<BrokerAnswers['pause']> {
    const domain = placed(machine);
    if (machine.guard !== undefined) throw new DomschedError('refused', 'it is paused already', {});
    this.#expectBudget(machine);
    const guard = await domain.pause.acquire(use);
    machine.guard = guard;
    machine.use = use;
    // Not from when it was asked for: another one of us may have had it paused, and ours waited.
    machine.pausedMs = this.#now();
    const { monitor } = machine.opened;
    const heard = monitor ? { resets: monitor.resets, ramVersion: monitor.ramVersion } : null;
    return { foundPaused: guard.foundPaused, heard };
  }

  async #resume(machine: OpenMachine): Promise<void> {
    const { guard } = machine;
    machine.guard = undefined;
    try {
      await guard?.release();
    } finally {
      if (guard !== undefined && !guard.foundPaused) this.#charge(machine);
    }
  }

  /** @throws DomschedError `timeout` for a machine that has stood for too much of its time and has to run on first */
  #expectBudget({ opened: { identity } }: OpenMachine): void {
    const stood = this.#stood.get(keyOf(identity)) ?? NEVER_STOOD;
    const waitMs = Math.ceil(runsFirstMs(stood, this.#now()));
    if (waitMs === 0) return;
    const message = `${identity.name} has been paused for too much of its time, and runs on for ${waitMs} ms first`;
    throw new DomschedError('timeout', message, { domain: identity.name, again: true, waitMs });
  }

  #charge({ opened: { identity }, pausedMs }: OpenMachine): void {
    const now = this.#now();
    const key = keyOf(identity);
    const stood = afterPause(this.#stood.get(key) ?? NEVER_STOOD, pausedMs, now);
    this.#stood.set(key, stood);
    if (this.#stood.size <= MOST_MACHINES) return;
    for (const [other, { atMs }] of this.#stood) if (now - atMs > FORGOTTEN_MS) this.#stood.delete(other);
  }

  /** Ends its pause and closes it; if the one fails, the other ends all pauses that there are. */
  async #letGo(machine: OpenMachine): Promise<void> {
    try {
      await this.#resume(machine);
    } finally {
      await (machine.domain ?? machine.opened).close();
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

  /** @throws DomschedError `refused` */
  #requireOurs(record: HeldRecord | ChangeRecord): void {
    if (this.#places.some((place) => place.owns(record))) return;
    throw new DomschedError('refused', 'this is no record of a machine that could be open', {});
  }

  /** What is written down is read by root, who goes to the machine that it names: it has to be one that is open. */
  async #record({ journal, record }: RequestOf<'record'>): Promise<void> {
    const isKind = journal === 'held' ? !('kind' in record) : 'kind' in record && record.kind === 'nice';
    const isOfMachine = [...this.#open.values()].some(
      ({ opened: { identity } }) =>
        record.domain === identity.id &&
        record.connection === identity.connection &&
        record.name === identity.name &&
        'machine' in record &&
        record.machine?.pid === identity.pid &&
        record.machine.started === identity.started,
    );
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

/** An error as it is told: nothing but what is ours. */
function failureOf(error: unknown): z.output<typeof FAILURE> {
  if (!(error instanceof DomschedError)) {
    return { code: 'protocol', message: `the broker failed: ${String(error)}`, details: {} };
  }
  const { code, message, details } = error;
  return { code, message, details: JSON.parse(JSON.stringify(details, plain)) };
}

/** @throws DomschedError `refused` */
function monitorOf({ opened: { monitor, identity } }: OpenMachine): NonNullable<OpenedMachine['monitor']> {
  if (monitor !== undefined) return monitor;
  throw new DomschedError('refused', `${identity.name} has no monitor`, {});
}

/** @throws DomschedError `domain-gone`, `refused` */
function changesOf(machine: OpenMachine, known: number): BrokerAnswers['changes'] {
  const { physicalBits } = placed(machine).frames;
  const { resets, ramVersion: version, ram: places } = monitorOf(machine);
  return { resets, ram: version === known ? null : { version, physicalBits, places } };
}

function keyOf({ pid, started }: OpenedMachine['identity']): string {
  return `${pid}-${started}`;
}

function placed(machine: OpenMachine): Domain & Required<Pick<Domain, 'pause' | 'writeFrames'>> {
  const {
    domain,
    opened: { identity },
  } = machine;
  if (!isAlive(identity) && domain !== undefined && domain.identity.pid !== undefined) {
    throw new DomschedError('domain-gone', `${identity.name} has ended`, { domain: identity.name });
  }
  if (domain === undefined) throw new DomschedError('refused', 'its memory is not placed yet', {});
  requireCapabilities(domain, 'pause', 'writeFrames');
  return domain;
}

function guardOf({ guard, opened: { identity } }: OpenMachine): PauseGuard {
  if (guard?.valid) return guard;
  const { name } = identity;
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
