import { z } from 'zod';
import { FRAME_LIMIT, FRAME_SIZE } from '../hypervisor/frame.ts';
import type { RamSegment } from '../hypervisor/qemu/ram.ts';
import type { DomainIdentity, DomainState, StandingPause } from '../hypervisor/types.ts';
import type { MachineProcess } from '../hypervisor/vmm/machine-process.ts';
import { CHANGE_RECORD, HELD_RECORD } from '../surgeon/journal-schema.ts';

/** Descriptors of the broker: the connection with requests and answers, and that by which it hands files over. */
export const REQUESTS = 3;
export const DESCRIPTORS = 4;

/** Most bytes of one request. An edit of {@link MOST_WORDS} words takes less than half of it. */
export const MOST_BYTES = 1024 * 1024;
/** Most bytes of one answer: {@link MOST_RECORDS} records of {@link MOST_RECORD_BYTES}. */
export const MOST_ANSWER_BYTES = 64 * 1024 * 1024;
/** Most machines that are open at once. */
export const MOST_MACHINES = 4096;
/** Most words of one edit: a hold of 256 threads takes some hundreds. */
export const MOST_WORDS = 4096;
/** Most words that show whether a guest has run: three for each of its CPUs. */
export const MOST_STILL = 2048;
/** Most requests that wait for an answer. */
export const MOST_REQUESTS = 256;
/** Most records of one kind. */
export const MOST_RECORDS = 16_384;
/** Most bytes of one record, as it is written down: names and reasons are some hundreds. */
export const MOST_RECORD_BYTES = 4_000;

const pid = z
  .number()
  .int()
  .positive()
  .max(2 ** 31);
const frame = z
  .number()
  .int()
  .nonnegative()
  .max(FRAME_LIMIT - 1);
const offset = z
  .number()
  .int()
  .min(0)
  .max(FRAME_SIZE - 1);
const word = z.string().regex(/^([0-9a-f]{2}|[0-9a-f]{4}|[0-9a-f]{8}|[0-9a-f]{16})$/);

/** A word of an edit: little-endian bytes, in hex. It is aligned, so it lies within its frame. */
const WORD = z
  .strictObject({ frame, offset, old: word, new: word })
  .refine((each) => each.old.length === each.new.length, 'old and new differ in size')
  .refine((each) => each.offset % (each.old.length / 2) === 0, 'is not aligned');

const address = z
  .number()
  .int()
  .nonnegative()
  .max(2 ** 47);
const BLOCK = z.strictObject({ start: address, length: address });

/** Which of the places that the daemon was given, in their order. */
const host = z.number().int().min(0).max(255);
/** Longest name of a machine: a path. */
const domain = z.string().max(4096);

const JOURNAL = z.enum(['held', 'changed']);
const record = z
  .union([HELD_RECORD, CHANGE_RECORD])
  .refine((each) => Buffer.byteLength(JSON.stringify(each)) <= MOST_RECORD_BYTES, 'is too long');

/** All that the reader can ask for. `machine` is a number that `open` answered. */
export const REQUEST = z.discriminatedUnion('op', [
  z.strictObject({ op: z.literal('ids'), host }),
  z.strictObject({ op: z.literal('list'), host }),
  z.strictObject({ op: z.literal('open'), host, domain }),
  z.strictObject({
    op: z.literal('place'),
    machine: pid,
    /** Left out for a machine with a monitor, which tells. */
    where: z
      .strictObject({
        blocks: z.array(BLOCK).min(1).max(8),
        /** Bytes of RAM from address 0 on; the rest is above 4 GiB. */
        low: address,
      })
      .optional(),
  }),
  /** What its monitor has told since. `ram` is the version of its RAM's places that is known, -1 for none. */
  z.strictObject({ op: z.literal('changes'), machine: pid, ram: z.number().int().min(-1) }),
  z.strictObject({ op: z.literal('registers'), machine: pid }),
  z.strictObject({ op: z.literal('state'), machine: pid }),
  /** Why it stands still, if nobody is about to end that. */
  z.strictObject({ op: z.literal('standing'), machine: pid }),
  z.strictObject({ op: z.literal('pause'), machine: pid, use: z.enum(['look', 'edit']) }),
  z.strictObject({ op: z.literal('prove'), machine: pid }),
  z.strictObject({ op: z.literal('resume'), machine: pid }),
  z.strictObject({
    op: z.literal('edit'),
    machine: pid,
    title: z.string().max(256),
    words: z.array(WORD).min(1).max(MOST_WORDS),
    still: z
      .array(z.strictObject({ frame, offset, bytes: z.string().regex(/^([0-9a-f]{2}){1,8}$/) }))
      .max(MOST_STILL),
    harmlessInParts: z.literal(true).optional(),
  }),
  z.strictObject({ op: z.literal('close'), machine: pid }),
  z.strictObject({ op: z.literal('reserve') }),
  z.strictObject({ op: z.literal('probe') }),
  z.strictObject({ op: z.literal('records'), journal: JOURNAL }),
  z.strictObject({ op: z.literal('record'), journal: JOURNAL, record }),
  z.strictObject({ op: z.literal('forget'), journal: JOURNAL, record }),
]);

export type BrokerRequest = z.output<typeof REQUEST>;
export type RequestOf<Op extends BrokerRequest['op']> = Extract<BrokerRequest, { op: Op }>;

/** A request as it is sent. */
export const NUMBERED = z.looseObject({ id: z.number().int().nonnegative() });

/** An error as it is sent. */
export const FAILURE = z.strictObject({
  code: z.string(),
  message: z.string(),
  details: z.record(z.string(), z.unknown()),
});

/** What {@link BrokerAnswers} has of a machine that was listed. */
export type ListedMachine =
  | {
      readonly identity: DomainIdentity;
      readonly state: DomainState;
      readonly vcpus: number | null;
      readonly memoryBytes: number;
    }
  | {
      readonly identity: DomainIdentity;
      readonly failure: z.output<typeof FAILURE>;
      readonly standing: StandingPause | null;
    };

/** A machine whose memory is placed. */
export interface PlacedMachine {
  /** What a process that was killed had left there, and was repaired. */
  readonly recovery: 'nothing' | 'resumed' | 'undone';
  readonly endsWithUs: boolean;
  readonly way: string | null;
  readonly lacksBranchTracking: boolean;
  /** Of a machine with a monitor: the threads that run its CPUs. */
  readonly threads: readonly number[] | null;
  /** Why nothing can be edited in it as it was started. */
  readonly refusal: z.output<typeof FAILURE> | null;
}

/** What a machine's monitor has told. */
export interface MonitorChanges {
  /** How often it was reset since it was opened. */
  readonly resets: number;
  /** Where its RAM is in its process, if that is another version than the known one. */
  readonly ram: {
    readonly version: number;
    readonly physicalBits: number;
    readonly places: readonly RamSegment[];
  } | null;
}

/** What each request is answered with. */
export interface BrokerAnswers {
  readonly ids: readonly string[];
  readonly list: readonly ListedMachine[];
  /** Its descriptors are sent before. Without a process, its monitor tells where its RAM is. */
  readonly open: {
    readonly machine: number;
    readonly identity: DomainIdentity & { readonly pid: number };
    readonly process: MachineProcess | null;
  };
  readonly place: PlacedMachine;
  readonly state: DomainState;
  readonly standing: StandingPause | null;
  readonly pause: {
    readonly foundPaused: boolean;
    /** Of a machine with a monitor: whether there is something to ask `changes` for. */
    readonly heard: { readonly resets: number; readonly ramVersion: number } | null;
  };
  readonly prove: string;
  readonly changes: MonitorChanges;
  /** Of all its CPUs, as QEMU prints them. */
  readonly registers: string;
  readonly resume: null;
  readonly edit: null;
  readonly close: null;
  readonly reserve: null;
  readonly probe: null;
  readonly records: readonly unknown[];
  readonly record: null;
  readonly forget: null;
}

/** An answer as it is sent. */
export const ANSWER = z.union([
  z.strictObject({ id: z.number(), value: z.unknown() }),
  z.strictObject({ id: z.number(), error: FAILURE }),
]);
