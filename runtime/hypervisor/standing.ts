import { isAlive } from '../host-process.ts';
import { type TableFile, type TableKind, tableFiles } from './pause-files.ts';
import { marksFolder } from './qemu/pause-mark.ts';
import { isStopped, stopped } from './stopped-process.ts';
import type { StandingPause } from './types.ts';
import { commandLine, machineName } from './vmm/command-line.ts';

/**
 * A stopped process of ours that has paused a domain.
 * @param folder of tables
 * @param key of the domain there
 */
export function stoppedHolder(folder: string, kind: TableKind, key: number): StandingPause | undefined {
  for (const table of tablesOfStopped(folder)) {
    const pause =
      table.kind === kind && table.pauses.find(({ key: of, wish }) => of === key && wish !== 'resumed');
    if (!pause) continue;
    const { pid } = table.writer;
    return { by: 'stopped', pid, ...stopped(pid), ...(pause.wish === 'keep' && { edit: true as const }) };
  }
  return undefined;
}

/** Guests that stand still because a process of ours is stopped, by their names. */
export function standingBy(
  pid: number,
  folder = marksFolder(),
): { readonly name: string; readonly edit: boolean }[] {
  return tablesOfStopped(folder)
    .filter(({ writer }) => writer.pid === pid)
    .flatMap(({ kind, pauses }) =>
      pauses
        .filter(({ wish }) => wish !== 'resumed')
        .map(({ key, wish }) => ({
          name: kind === 'xen' ? `domain ${key} of Xen` : (machineName(commandLine(key)) ?? `process ${key}`),
          edit: wish === 'keep',
        })),
    );
}

function tablesOfStopped(folder: string): TableFile[] {
  return tableFiles(folder).filter(({ writer }) => isAlive(writer) && isStopped(writer.pid));
}

/** A sentence for people, without the domain's name: what it is, and what to do. */
export function describeStanding({ by, pid, since, edit }: StandingPause): string {
  if (by === 'dead') {
    const who = pid === undefined ? 'a process of domsched' : `process ${pid} of domsched`;
    return `stands still in a pause that ${who} left when it was killed; end it: domsched release --all`;
  }
  const when = since === undefined ? '' : ` since about ${new Date(since).toISOString()}`;
  const what = edit ? ', in the middle of an edit' : '';
  return `stands still because process ${pid} is stopped (SIGSTOP or a debugger)${when}${what}; let it go on: kill -CONT ${pid}`;
}
