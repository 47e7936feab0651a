import { describeEdit } from '../edit/edit.ts';
import type { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import type { OperateOptions, Operation } from '../surgeon/surgeon.ts';
import type { EditAnswer, Failure, ProcessRow, PsAnswer } from './control.ts';

/** Builds the answer to an edit. */
export function editAnswer(domain: string, { pid, comm }: Process, operation: Operation): EditAnswer {
  const { outcome, techniques, attempts, pausedUs, writes, kept, members, edits, means = [] } = operation;
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
    planned: outcome === 'planned' ? [...means, ...edits.flatMap(describeEdit)] : [],
  };
}

/** The result of a look at one domain by any implementation. */
export type DomainLook = { readonly name: string } & (
  | {
      readonly guest: Guest;
      readonly processes: readonly Process[];
      /** The guest does not know about holds: its kernel sees a process that sleeps or is about to run. */
      readonly isHeld: (process: Process) => boolean;
    }
  | { readonly error: { readonly code: string; readonly message: string } }
);

export function psAnswer(looks: readonly DomainLook[]): PsAnswer {
  const rows: ProcessRow[] = [];
  const errors: Failure[] = [];
  const notes: string[] = [];
  for (const look of looks) {
    const { name: domain } = look;
    if ('error' in look) errors.push(failureOf(domain, look.error));
    else {
      for (const process of look.processes) {
        const { address: _, ...plain } = process;
        rows.push({ domain, ...plain, ...(look.isHeld(process) && { state: 'held' as const }) });
      }
      notes.push(...notesOn(domain, look.guest));
    }
  }
  return { rows, errors, notes };
}

/** Notes for whoever reads a list of a guest's processes. */
function notesOn(name: string, { kernel, torn, queuesUnknown }: Guest): string[] {
  const notes: string[] = [];
  if (kernel.crashed > 0)
    notes.push(
      `${name}: ${kernel.crashed} of its CPUs have halted in a kernel that crashed; these are the processes of the one that runs in its place`,
    );
  if (kernel.standing !== undefined)
    notes.push(
      `${name}: its memory holds another kernel too, which stands still: it crashed, or kexec put this one in its place`,
    );
  if (torn !== undefined)
    notes.push(`${name}: the guest ran while this image was taken (${torn}); its processes only are read`);
  else if (queuesUnknown !== undefined)
    notes.push(`${name}: its run queues are not read (${queuesUnknown}), its processes are`);
  return notes;
}

export function failureOf(domain: string, { code, message }: Omit<Failure, 'domain'>): Failure {
  return { domain, code, message };
}

const DEFAULT_TIMEOUT_S = 5;

export function limitsOf({
  timeout = DEFAULT_TIMEOUT_S,
  dryRun = false,
}: {
  timeout?: number | undefined;
  dryRun?: boolean | undefined;
}): OperateOptions {
  return { limitMs: timeout * 1000, dryRun };
}
