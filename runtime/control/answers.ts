import { describeEdit } from '../edit/edit.ts';
import type { Guest } from '../guest/guest.ts';
import type { IdentifiedKernel } from '../guest/identify/types.ts';
import type { Process } from '../guest/process.ts';
import { printable } from '../guest/text.ts';
import { describeStanding } from '../hypervisor/standing.ts';
import type { StandingPause } from '../hypervisor/types.ts';
import type { OperateOptions, Operation } from '../surgeon/surgeon.ts';
import type { Ways } from '../surgeon/ways.ts';
import { UNKNOWN } from '../watch/hold.ts';
import type { DomainLook } from '../watch/look.ts';
import type { DomainEntry, EditAnswer, Failure, ProcessRow, PsAnswer } from './control.ts';

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

export function psAnswer(looks: readonly DomainLook[]): PsAnswer {
  const rows: ProcessRow[] = [];
  const errors: Failure[] = [];
  const notes: string[] = [];
  for (const look of looks) {
    const domain = look.identity.name;
    if ('error' in look) errors.push(failureOf(domain, look.error));
    else {
      const { guest, tracker, processes } = look;
      const unknown: string[] = [];
      for (const process of processes) {
        const { address: _, suspects: __, ...plain } = process;
        const hold = tracker.holds.get(tracker.keyOf(process));
        const held = hold && ({ state: 'held', heldBy: hold.policy } as const);
        rows.push({ domain, ...plain, ...held });
        if (hold?.policy === UNKNOWN) unknown.push(`${process.pid} (${process.comm})`);
      }
      if (unknown.length > 0) notes.push(heldByNobodyKnown(domain, unknown));
      notes.push(...notesOn(domain, guest));
    }
  }
  return { rows, errors, notes };
}

/** As many are named; of more, how many. */
const MOST_NAMED = 5;

function heldByNobodyKnown(name: string, processes: readonly string[]): string {
  const more = processes.length - MOST_NAMED;
  const who = `${processes.slice(0, MOST_NAMED).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
  return `${name}: held, and no record here tells by whom: ${who}; domsched release --all lets go`;
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

type DomainFacts = Pick<DomainEntry, 'id' | 'hypervisor' | 'connection' | 'state' | 'vcpus' | 'memoryBytes'>;

/**
 * @param seen the kernel that was identified, or why none was
 * @param stands see {@link Domain.standing}
 */
export function domainEntry(
  domain: string,
  { id, hypervisor, connection, state, vcpus, memoryBytes }: DomainFacts,
  seen: { readonly kernel: IdentifiedKernel; readonly ways: Ways } | Pick<DomainEntry, 'error'>,
  stands?: StandingPause,
): DomainEntry {
  const standing = stands === undefined ? null : describeStanding(stands);
  const known = { domain, id, hypervisor, connection, state, vcpus, memoryBytes };
  if ('error' in seen) {
    const error = seen.error && { code: seen.error.code, message: seen.error.message };
    const none = { kernel: null, buildId: null, layoutFrom: null, schedulers: null, ways: null };
    return { ...known, ...none, error, standing };
  }
  const { release, buildId, learned = null, layout } = seen.kernel;
  const { schedulers } = layout.kernel;
  return {
    ...known,
    kernel: release,
    buildId,
    layoutFrom: learned,
    schedulers,
    ways: seen.ways,
    error: null,
    standing,
  };
}

/** Note on a process that is released without a record of its hold. */
export function foundHeld(domain: string, { pid, comm }: { readonly pid: number; readonly comm: string }) {
  return `${printable(`${domain}: ${pid} (${comm})`)} is held, and no record tells by whom: letting it go`;
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
