import { DomschedError } from '../error.ts';
import { shellWord } from '../shell-word.ts';
import type { Process } from './process.ts';
import { plainName, printable } from './text.ts';

/**
 * Finds a process by pid or by an unambiguous name.
 * @param domain name of the domain, for messages
 * @throws DomschedError `process-not-found`, `process-ambiguous`
 */
export function findProcess(domain: string, processes: readonly Process[], target: string): Process {
  const found = /^\d+$/.test(target)
    ? processes.filter(({ pid }) => pid === Number(target))
    : called(processes, target);
  if (found.length === 0) {
    throw new DomschedError(
      'process-not-found',
      `${printable(domain)} has no process ${printable(target)}; domsched ps ${shellWord(printable(domain))} lists those that it has`,
      { domain, process: target },
    );
  }
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

/** Processes of that name or, if there are none, those that tables show under it. */
function called(processes: readonly Process[], name: string): Process[] {
  const found = processes.filter(({ comm }) => plainName(comm) === name);
  return found.length > 0 ? found : processes.filter(({ comm }) => comm === name);
}
