import type { TickAction, TickDomain, TickFleet, TickProcess, TickWait } from '../../tick/tick.ts';
import { LineDecoder } from '../../trace/decode.ts';
import type { TickLine } from '../../trace/line.ts';

/** Ticks remembered for each process. */
export const SAMPLES = 600;
/** Edits remembered. */
const MOST_ACTIONS = 300;

/** State of a process at a tick. */
export const DOING = { absent: 0, sleeping: 1, waiting: 2, held: 3, stopped: 4 } as const;

/** A process and its last ticks, in rings; all processes share the positions. */
export interface Track {
  readonly domain: string;
  process: TickProcess;
  /** Percent of one CPU, 255 at most. */
  readonly ran: Uint8Array;
  readonly doing: Uint8Array;
}

export interface PastAction extends TickAction {
  readonly ms: number;
}

/** All that the page knows: the last tick and earlier ones. It does not touch the document. */
export class Store {
  /** Time of each place in the rings, in ms since the daemon's start. */
  readonly times = new Float64Array(SAMPLES);
  readonly domains = new Map<string, { facts: TickDomain; tracks: Map<string, Track> }>();
  readonly actions: PastAction[] = [];
  /** As they were told last, the longest first. */
  waits: readonly TickWait[] = [];
  last: TickLine | undefined;
  /** As it was at the last tick; undefined if there is none. */
  get fleet(): TickFleet | undefined {
    return this.#decoder.fleet;
  }
  /** Ticks received in this session; the last one is at place `(count - 1) % SAMPLES`. */
  count = 0;
  /** Changes when a process or domain comes or goes, so that lists are rebuilt. */
  revision = 0;
  #decoder = new LineDecoder();
  #session = '';

  /** @param session of the daemon; a new one starts without history */
  apply(line: TickLine, session: string): void {
    if (session !== this.#session) this.#begin(session);
    // After a gap a tick may arrive that is already known.
    if (this.last !== undefined && line.tick <= this.last.tick) return;
    this.#decoder.apply(line);
    this.last = line;
    const place = this.count++ % SAMPLES;
    this.times[place] = line.ms;
    if (line.waits !== undefined) this.waits = line.waits;
    for (const action of line.actions) this.actions.push({ ...action, ms: line.ms });
    this.actions.splice(0, this.actions.length - MOST_ACTIONS);
    for (const id of this.domains.keys()) {
      if (!this.#decoder.domains.has(id)) this.#forget(id);
    }
    for (const [id, { facts, processes }] of this.#decoder.domains) {
      const domain = this.#domain(id, facts);
      for (const [key, process] of processes)
        this.#sample(domain.tracks, id, key, process, place, line.elapsedMs);
      if (domain.tracks.size !== processes.size) {
        for (const key of domain.tracks.keys()) if (!processes.has(key)) domain.tracks.delete(key);
        this.revision++;
      }
    }
  }

  #begin(session: string): void {
    this.#session = session;
    this.#decoder = new LineDecoder();
    this.domains.clear();
    this.actions.length = 0;
    this.waits = [];
    this.last = undefined;
    this.count = 0;
    this.revision++;
  }

  #forget(id: string): void {
    this.domains.delete(id);
    this.revision++;
  }

  #domain(id: string, facts: TickDomain) {
    const known = this.domains.get(id);
    if (known !== undefined) {
      known.facts = facts;
      return known;
    }
    const domain = { facts, tracks: new Map<string, Track>() };
    this.domains.set(id, domain);
    this.revision++;
    return domain;
  }

  #sample(
    tracks: Map<string, Track>,
    domain: string,
    key: string,
    process: TickProcess,
    place: number,
    elapsedMs: number,
  ): void {
    let track = tracks.get(key);
    if (track === undefined) {
      track = { domain, process, ran: new Uint8Array(SAMPLES), doing: new Uint8Array(SAMPLES) };
      tracks.set(key, track);
      this.revision++;
    }
    track.process = process;
    const share = elapsedMs > 0 ? process.ranNs / 1e4 / elapsedMs : 0;
    // Distinguish even the smallest run from none.
    track.ran[place] = share > 0 ? Math.min(255, Math.max(1, Math.round(share))) : 0;
    track.doing[place] = doing(process);
  }
}

function doing({ held, state }: TickProcess): number {
  if (held !== undefined || state === 'held') return DOING.held;
  if (state === 'running' || state === 'ready') return DOING.waiting;
  return state === 'sleeping' ? DOING.sleeping : DOING.stopped;
}

/** Percent of one CPU in the time since the previous tick. */
export function shareOf(ranNs: number, elapsedMs: number): number {
  return elapsedMs > 0 ? ranNs / 1e4 / elapsedMs : 0;
}
