import { closeSync, openSync, readdirSync, readSync } from 'node:fs';
import path from 'node:path';

/** CPU time and waits of a thread of the host, as its kernel measured them. */
export interface HostThreadAccount {
  readonly tid: number;
  readonly pid: number;
  /** Name of its process in its own bytes, one character per byte. Never print it. */
  readonly rawComm: string;
  /** CPU that it runs on, waits for or last ran on. */
  readonly cpu: number;
  readonly ranNs: number;
  /** Time in a run queue, without a stay that lasts. */
  readonly waitedNs: number;
}

/** A process at the last reading. */
interface ReadProcess {
  /** Changes when the process has run for a clock tick, or another one has its number. */
  readonly mark: string;
  readonly threads: readonly HostThreadAccount[];
}

/** 52 numbers of 64 bits and a name: `stat` is never longer. */
const ROOM = 1_200;

/** Places of fields behind the name in `/proc/PID/stat` (proc(5) counts from 1, and the name is the second). */
const FIELD = { utime: 14 - 3, stime: 15 - 3, threads: 20 - 3, started: 22 - 3, processor: 39 - 3 };

/**
 * Reads the accounts of all threads of this host. A process that has not run for a clock tick since the last reading is
 * not read again: its time is counted when it has.
 */
export class HostThreads {
  readonly #root: string;
  /** One buffer for all files: `readFileSync` would take twice the time. */
  readonly #bytes = Buffer.alloc(ROOM);
  #processes = new Map<number, ReadProcess>();

  /** @param root where /proc is mounted */
  constructor(root = '/proc') {
    this.#root = root;
  }

  /** @param always processes that are read however little they ran: machines */
  read(always: ReadonlySet<number> = new Set()): HostThreadAccount[] {
    const processes = new Map<number, ReadProcess>();
    for (const name of readdirSync(this.#root)) {
      if (!/^\d+$/.test(name)) continue;
      const pid = Number(name);
      const stat = parseStat(this.#text(`${name}/stat`));
      if (stat === undefined) continue;
      const { rawComm, fields } = stat;
      const { utime, stime, threads, started } = FIELD;
      const mark = [utime, stime, threads, started].map((field) => fields[field]).join(' ');
      const before = this.#processes.get(pid);
      const isSame = before?.mark === mark && !always.has(pid);
      processes.set(pid, isSame ? before : { mark, threads: this.#threads(pid, rawComm) });
    }
    this.#processes = processes;
    return Array.from(processes.values(), ({ threads }) => threads).flat();
  }

  #threads(pid: number, rawComm: string): HostThreadAccount[] {
    let tids: string[];
    try {
      tids = readdirSync(path.join(this.#root, `${pid}/task`));
    } catch {
      return [];
    }
    return tids.flatMap((tid) => {
      const [ranNs, waitedNs] = (this.#text(`${pid}/task/${tid}/schedstat`) ?? '').split(' ').map(Number);
      const cpu = Number(parseStat(this.#text(`${pid}/task/${tid}/stat`))?.fields[FIELD.processor]);
      if (!Number.isFinite(ranNs) || !Number.isFinite(waitedNs) || !Number.isInteger(cpu)) return [];
      return [{ tid: Number(tid), pid, rawComm, cpu, ranNs: ranNs!, waitedNs: waitedNs! }];
    });
  }

  /** Undefined if the process has ended, or hides it. */
  #text(file: string): string | undefined {
    let open: number | undefined;
    try {
      open = openSync(path.join(this.#root, file), 'r');
      return this.#bytes.toString('latin1', 0, readSync(open, this.#bytes, 0, ROOM, 0));
    } catch {
      return undefined;
    } finally {
      if (open !== undefined) closeSync(open);
    }
  }
}

/** The name in parentheses may contain anything, even a parenthesis. */
function parseStat(text: string | undefined): { rawComm: string; fields: string[] } | undefined {
  if (text === undefined) return undefined;
  const begin = text.indexOf('(');
  const end = text.lastIndexOf(')');
  if (begin < 0 || end < begin) return undefined;
  return {
    rawComm: text.slice(begin + 1, end),
    fields: text
      .slice(end + 2)
      .trimEnd()
      .split(' '),
  };
}
