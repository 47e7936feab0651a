import { z } from 'zod';
import { NOTE_CODES } from '../blame/notes.ts';

// What operators ask of `blame`, and what hosts answer: read by the other side, which believes neither.

/** Longest time for which a host looks for somebody else, and shortest time between two looks, in s. */
export const LONGEST_BLAME_S = 600;
export const SHORTEST_LOOK_S = 0.25;
const LONGEST_LOOK_S = 60;
/** Most culprits, waiting processes and notes that a host tells; what the other culprits add up to is told as one. */
export const MOST_CULPRITS = 200;
export const MOST_VICTIMS = 100;
export const MOST_NOTES = 100;
/** Longest name that is told. */
export const LONGEST_TOLD = 256;

const text = z.string().max(LONGEST_TOLD);
const id = z.string().regex(/^[\w-]{8,32}$/);

export const BLAME_QUESTION = z.discriminatedUnion('do', [
  z.object({
    v: z.literal(1),
    do: z.literal('begin'),
    /** By which the end is asked for. */
    id,
    seconds: z.number().min(0).max(LONGEST_BLAME_S),
    interval: z.number().min(SHORTEST_LOOK_S).max(LONGEST_LOOK_S),
    /** Patterns of hosts that are meant; all if there are none. */
    hosts: z.array(text).max(100),
    /** A domain's name, alone or behind its host's and a slash; all domains when left out. */
    domain: text.optional(),
    /** Pid or name; all processes when left out. */
    process: text.optional(),
  }),
  z.object({ v: z.literal(1), do: z.literal('end'), id }),
]);

type BlameQuestion = z.output<typeof BLAME_QUESTION>;
export type BlameBegin = Omit<BlameQuestion & { do: 'begin' }, 'v' | 'do'>;

const failure = z.object({ code: z.string().regex(/^[a-z-]{1,32}$/), message: z.string().max(2_000) });

/** How many domains and processes of a host are meant at the beginning, or why it does not look. */
export const BLAME_BEGUN = z.union([
  z.object({ domains: count(), processes: count() }),
  z.object({ error: failure }),
]);

const ns = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

const CULPRIT = z.object({
  kind: z.enum(['process', 'guest', 'machine', 'host', 'cap', 'unknown']),
  domain: text.optional(),
  comm: text.optional(),
  place: z.enum(['guest', 'host']),
  waitedNs: ns,
});

const VICTIM = z.object({
  domain: text,
  pid: z
    .number()
    .int()
    .min(0)
    .max(2 ** 31),
  comm: text,
  ranNs: ns,
  waitedNs: ns,
});

/** What a host found. Shares are made by who reads it: they add up, whatever it says. */
export const BLAME_FOUND = z.union([
  z.object({
    elapsedNs: ns,
    samples: count(),
    ranNs: ns,
    culprits: z.array(CULPRIT).max(MOST_CULPRITS),
    /** The other culprits together. */
    rest: z.object({ culprits: count(), inGuestNs: ns, onHostNs: ns }),
    processes: z.array(VICTIM).max(MOST_VICTIMS),
    moreProcesses: count(),
    notes: z.array(z.object({ code: z.enum(NOTE_CODES), domain: text })).max(MOST_NOTES),
  }),
  z.object({ error: failure }),
]);

export type BlameFound = z.output<typeof BLAME_FOUND>;

function count() {
  return z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
}
