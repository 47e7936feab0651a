import { DomschedError } from '../error.ts';
import { shellWord } from '../shell-word.ts';
import type { Process } from './process.ts';
import { plainName, printable } from './text.ts';

/** What a process is found by. */
type NamedProcess = Pick<Process, 'pid' | 'comm'>;

/**
 * Finds a process by pid or by an unambiguous name.
 * @param domain name of the domain, for messages
 * @throws DomschedError `process-not-found`, `process-ambiguous`
 */
export function findProcess(domain: string, processes: readonly Process[], target: string): Process {
  const found = findProcesses(domain, processes, target);
  if (found.length > 1) {
    const pids = found.map(({ pid }) => pid);
    throw new DomschedError(
      'process-ambiguous',
      `${found.length} processes of ${printable(domain)} are called ${printable(target)}; give one of ${pids.join(', ')}`,
      { domain, process: target, pids },
    );
  }
  return found[0]!;
}

/**
 * Finds the process with a pid, or all with a name.
 * @returns at least one
 * @throws DomschedError `process-not-found`
 */
export function findProcesses<P extends NamedProcess>(
  domain: string,
  processes: readonly P[],
  target: string,
): readonly P[] {
  const found = /^\d+$/.test(target)
    ? processes.filter(({ pid }) => pid === Number(target))
    : called(processes, target);
  if (found.length > 0) return found;
  throw new DomschedError(
    'process-not-found',
    `${printable(domain)} has no process ${printable(target)}; domsched ps ${shellWord(printable(domain))} lists those that it has`,
    { domain, process: target },
  );
}

/** Whether a pid or a name, as it is or as tables show it, means this process. */
export function isProcess({ pid, comm }: NamedProcess, target: string): boolean {
  return /^\d+$/.test(target) ? pid === Number(target) : comm === target || plainName(comm) === target;
}

/** Processes of that name or, if there are none, those that tables show under it. */
function called<P extends NamedProcess>(processes: readonly P[], name: string): P[] {
  const found = processes.filter(({ comm }) => plainName(comm) === name);
  return found.length > 0 ? found : processes.filter(({ comm }) => comm === name);
}
