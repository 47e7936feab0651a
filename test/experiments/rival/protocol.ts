/** What agents in the guests tell (test/live/programs/agent.c), as lines of text. A guest may send anything. */

/** Of one agent: a longer line, or one with more processes, is none. */
const LONGEST_LINE = 4_096;
const MOST_TASKS = 64;
/** PID_MAX_LIMIT of 64-bit kernels (include/linux/threads.h). */
const MOST_PID = 2 ** 22;

/** A process or kernel thread that was runnable when an agent looked. */
export interface ReportedTask {
  readonly pid: number;
  readonly comm: string;
  readonly isKernel: boolean;
}

export type AgentLine =
  | { readonly type: 'hello'; readonly guest: string }
  | { readonly type: 'look'; readonly runnable: readonly ReportedTask[] };

/** @returns undefined for what no agent of ours sends */
export function parseAgentLine(line: string): AgentLine | undefined {
  if (line.length > LONGEST_LINE) return undefined;
  const [word, ...rest] = line.split(' ');
  if (word === 'hello') {
    const [guest] = rest;
    return rest.length === 1 && /^[\w-]{1,20}$/.test(guest!) ? { type: 'hello', guest: guest! } : undefined;
  }
  if (word !== 'look' || rest.length > MOST_TASKS) return undefined;
  const runnable = rest.map(parseTask);
  return runnable.every((task) => task !== undefined) ? { type: 'look', runnable } : undefined;
}

function parseTask(text: string): ReportedTask | undefined {
  // A name may hold colons itself.
  const match = /^([1-9]\d{0,6}):([ku]):([!-~]{1,16})$/.exec(text);
  const pid = Number(match?.[1]);
  return match !== null && pid <= MOST_PID ? { pid, comm: match[3]!, isKernel: match[2] === 'k' } : undefined;
}

/** Lines of one connection. */
export class AgentLines {
  #partial = '';

  /** @returns lines that are whole now; undefined when one is longer than any of an agent's: nothing more is of use */
  push(text: string): string[] | undefined {
    const lines = (this.#partial + text).split('\n');
    this.#partial = lines.pop()!;
    return [...lines, this.#partial].some(({ length }) => length > LONGEST_LINE) ? undefined : lines;
  }
}
