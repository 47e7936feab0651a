import { describeEdit } from '../edit/edit.ts';
import type { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import type { Operation } from '../surgeon/surgeon.ts';
import type { EditAnswer, Failure, Row } from './control.ts';

/** What is told of an edit. */
export function editAnswer(domain: string, { pid, comm }: Process, operation: Operation): EditAnswer {
  const { outcome, techniques, attempts, pausedUs, writes, kept, members, edits } = operation;
  return {
    domain,
    pid,
    comm,
    outcome,
    techniques,
    attempts,
    pausedUs: Math.round(pausedUs),
    writes,
    ...(kept > 0 && { kept }),
    ...(members && { members }),
    planned: outcome === 'planned' ? edits.flatMap(describeEdit) : [],
  };
}

/** @param isHeld the guest itself has no word for it: to its kernel the process sleeps, or is about to run */
export function rowsOf(
  domain: string,
  processes: readonly Process[],
  isHeld: (process: Process) => boolean,
): Row[] {
  return processes.map((process) => {
    const { address: _, ...plain } = process;
    return { domain, ...plain, ...(isHeld(process) && { state: 'held' as const }) };
  });
}

/** What to know of a list of a guest's processes. */
export function notesOn(name: string, { kernel, torn, queuesUnknown }: Guest): string[] {
  const notes: string[] = [];
  if (kernel.crashed > 0)
    notes.push(
      `${name}: ${kernel.crashed} of its CPUs have halted in a kernel that crashed; these are the processes of the one that runs in its place`,
    );
  if (torn !== undefined)
    notes.push(`${name}: the guest ran while this image was taken (${torn}); its processes only are read`);
  else if (queuesUnknown !== undefined)
    notes.push(`${name}: its run queues are not read (${queuesUnknown}), its processes are`);
  return notes;
}

export function failureOf(domain: string, { code, message }: DomschedError): Failure {
  return { domain, code, message };
}
