import type { ReportedTask } from './protocol.ts';

/** An order to the agent of the subject's guest. */
export interface AgentOrder {
  readonly guest: string;
  readonly verb: 'stop' | 'cont';
  readonly pid: number;
}

/** In how many looks of all agents what was among the runnable. */
export interface RivalCounts {
  readonly looks: number;
  /** Processes that the coordinator was told to ignore: the agents. */
  readonly ignored: number;
  readonly kernel: number;
  /** Somebody to ignore was there, and nobody else but the subject: looks that would have stopped it for nothing. */
  readonly ignoredAlone: number;
  /** Lines that are none. */
  readonly refused: number;
}

/** How many guests may tell something, whatever names they claim. */
const MOST_GUESTS = 16;

/**
 * The policy of Figure 8 inside the guests: the subject runs only while no other process of any guest is runnable, as
 * far as the last word of each agent goes.
 */
export class StrictPriority {
  readonly #subject: { readonly guest: string; readonly comm: string };
  readonly #ignore: ReadonlySet<string>;
  readonly #isBusy = new Map<string, boolean>();
  #counts = { looks: 0, ignored: 0, kernel: 0, ignoredAlone: 0, refused: 0 };
  #pid: number | undefined;
  #isStopped = false;

  /** @param ignore names of processes whose being runnable says nothing */
  constructor(subject: { readonly guest: string; readonly comm: string }, ignore: readonly string[]) {
    this.#subject = subject;
    this.#ignore = new Set(ignore);
  }

  get counts(): RivalCounts {
    return { ...this.#counts };
  }

  /** Takes one agent's look. @returns what its consequence is, if there is one */
  hear(guest: string, runnable: readonly ReportedTask[]): AgentOrder | undefined {
    if (!this.#isBusy.has(guest) && this.#isBusy.size === MOST_GUESTS) {
      this.refuse();
      return undefined;
    }
    const isSubject = ({ comm, isKernel }: ReportedTask) =>
      !isKernel && guest === this.#subject.guest && comm === this.#subject.comm;
    const isIgnored = ({ comm, isKernel }: ReportedTask) => !isKernel && this.#ignore.has(comm);
    const others = runnable.filter((task) => !isSubject(task) && !isIgnored(task) && !task.isKernel);
    this.#pid ??= runnable.find(isSubject)?.pid;
    this.#isBusy.set(guest, others.length > 0);
    this.#counts.looks += 1;
    if (runnable.some(isIgnored)) this.#counts.ignored += 1;
    if (runnable.some(({ isKernel }) => isKernel)) this.#counts.kernel += 1;
    if (runnable.some(isIgnored) && others.length === 0) this.#counts.ignoredAlone += 1;
    const stop = [...this.#isBusy.values()].some((isBusy) => isBusy);
    if (this.#pid === undefined || stop === this.#isStopped) return undefined;
    this.#isStopped = stop;
    return { guest: this.#subject.guest, verb: stop ? 'stop' : 'cont', pid: this.#pid };
  }

  /** Counts a line that is none. */
  refuse(): void {
    this.#counts.refused += 1;
  }
}
