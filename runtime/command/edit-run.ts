import process from 'node:process';
import { DomschedError } from '../error.ts';
import { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import { printable } from '../guest/text.ts';
import { requireCapabilities } from '../hypervisor/capability.ts';
import { connectAll } from '../hypervisor/connect.ts';
import { knownKernels } from '../layout/registry.ts';
import { describeEdit } from '../surgery/edit.ts';
import { holderFor } from '../surgery/holder-for.ts';
import { type HeldRecord, Journal } from '../surgery/journal.ts';
import { type OperateOptions, type Operation, type ProcessKey, Surgeon } from '../surgery/surgeon.ts';
import type { EditOptions } from './edit.ts';

/** Runs `domsched hold`. @throws DomschedError */
export async function hold(domain: string, target: string, options: EditOptions): Promise<void> {
  await operate(domain, target, options, async (bench) => {
    const journal = new Journal();
    const record = bench.record();
    const technique = options.technique ?? 'auto';
    const before = await isRecorded(journal, record, bench.process);
    try {
      return await bench.surgeon.hold(bench.process, {
        ...bench.options,
        ...(technique !== 'auto' && { techniques: [technique] }),
        force: options.force ?? false,
        journal: () => journal.add(record),
      });
    } catch (error) {
      // What was held before still is, unless undoing this hold let all of it go.
      const free = before ? isUndone(error) : !mayBeHeld(error);
      if (free) await journal.remove(record);
      throw error;
    }
  });
}

async function isRecorded(journal: Journal, record: HeldRecord, key: ProcessKey): Promise<boolean> {
  return (await journal.list()).some((held) => held.domain === record.domain && isOf(held, key));
}

function isUndone(error: unknown): boolean {
  return error instanceof DomschedError && error.details.undone === true;
}

/** A failed hold that could not be undone: its record is what leads back to it. */
function mayBeHeld(error: unknown): boolean {
  if (!(error instanceof DomschedError)) return true;
  return error.details.undone === false || error.details.restored === false;
}

/** Runs `domsched release`. @throws DomschedError */
export async function release(
  domain: string | undefined,
  target: string | undefined,
  options: EditOptions,
): Promise<void> {
  if (options.all) {
    if (domain !== undefined) throw new DomschedError('usage', 'give a domain and a process, or --all', {});
    return releaseAll(options);
  }
  if (domain === undefined || target === undefined) {
    throw new DomschedError('usage', 'give a domain and a process, or --all', {});
  }
  await operate(domain, target, options, releaseOne);
}

/** Runs `domsched renice`. @throws DomschedError */
export async function renice(
  domain: string,
  target: string,
  nice: number,
  options: EditOptions,
): Promise<void> {
  await operate(domain, target, options, async (bench) => {
    const journal = new Journal();
    const record = bench.record();
    // Some kernels' processes are held for the moment; what was held before stays in the journal.
    const before = await isRecorded(journal, record, bench.process);
    if (before) return bench.surgeon.renice(bench.process, nice, bench.options);
    try {
      const journaled = { ...bench.options, journal: () => journal.add(record) };
      const operation = await bench.surgeon.renice(bench.process, nice, journaled);
      await journal.remove(record);
      return operation;
    } catch (error) {
      if (!mayBeHeld(error)) await journal.remove(record);
      throw error;
    }
  });
}

/** A guest that is attached to, a process of it, and what it takes to edit it. */
interface Bench {
  readonly surgeon: Surgeon;
  readonly process: Process;
  readonly options: OperateOptions;
  record(): HeldRecord;
}

async function releaseOne(bench: Bench): Promise<Operation> {
  const operation = await bench.surgeon.release(bench.process, bench.options);
  if (!bench.options.dryRun) await new Journal().remove(bench.record());
  return operation;
}

/** Everything in the journal. One that fails does not keep the others from being let go. */
async function releaseAll(options: EditOptions): Promise<void> {
  const journal = new Journal();
  const records = await journal.list();
  const failures: DomschedError[] = [];
  for (const record of records) {
    try {
      const connect = options.connect ?? [record.connection];
      await operate(record.domain, record, { ...options, connect }, releaseOne);
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      if (GONE.has(error.code)) await journal.remove(record);
      else failures.push(error);
      process.stderr.write(
        `domsched: ${printable(record.name)}: ${printable(error.message)} [${error.code}]\n`,
      );
    }
  }
  if (records.length === 0 && !options.json) process.stdout.write('nothing is held\n');
  if (failures.length > 0) process.exitCode = Math.max(...failures.map(({ exitCode }) => exitCode));
}

/** A process or a domain that ended is held no longer. */
const GONE: ReadonlySet<string> = new Set(['process-not-found', 'domain-gone']);

async function operate(
  domainName: string,
  target: string | HeldRecord,
  options: EditOptions,
  perform: (bench: Bench) => Promise<Operation>,
): Promise<void> {
  await using hosts = await connectAll(options.connect ?? []);
  await using domain = await hosts.open(domainName);
  requireCapabilities(domain, 'pause', 'writeFrames', 'registers');
  const guest = await Guest.attach(domain, await knownKernels());
  try {
    const found = await find(guest, target);
    const { identity } = domain;
    const bench: Bench = {
      surgeon: new Surgeon(domain, guest, holderFor(guest)),
      process: found,
      options: { limitMs: (options.timeout ?? 5) * 1000, dryRun: options.dryRun ?? false },
      record: () => ({
        connection: identity.connection,
        domain: identity.id,
        name: identity.name,
        buildId: guest.kernel.buildId,
        pid: found.tgid,
        comm: found.comm,
        address: `0x${found.address.toString(16)}`,
        startTimeNs: found.startTimeNs,
        since: new Date().toISOString(),
      }),
    };
    print(identity.name, found, await perform(bench), options.json ?? false);
  } finally {
    guest.detach();
  }
}

/** The process that was asked for, by pid or by a name that is unambiguous; or the very one that a record is of. */
async function find(guest: Guest, target: string | HeldRecord): Promise<Process> {
  const { processes } = await guest.take({ pause: false, threads: false });
  if (typeof target !== 'string') {
    const held = processes.find((candidate) => isOf(target, candidate));
    if (held !== undefined) return held;
    throw new DomschedError('process-not-found', `process ${target.pid} (${target.comm}) has ended`, {
      ...target,
    });
  }
  const found = /^\d+$/.test(target)
    ? processes.filter(({ pid }) => pid === Number(target))
    : processes.filter(({ comm }) => comm === target);
  const name = guest.domain.identity.name;
  if (found.length === 0) {
    throw new DomschedError(
      'process-not-found',
      `${name} has no process ${printable(target)}; domsched ps ${name} lists those that it has`,
      { domain: name, process: target },
    );
  }
  if (found.length > 1) {
    const pids = found.map(({ pid }) => pid);
    throw new DomschedError(
      'process-ambiguous',
      `${found.length} processes of ${name} are called ${printable(target)}; give one of ${pids.join(', ')}`,
      { domain: name, process: target, pids },
    );
  }
  return found[0]!;
}

function isOf(record: HeldRecord, { pid, address, startTimeNs }: ProcessKey): boolean {
  return (
    pid === record.pid && `0x${address.toString(16)}` === record.address && startTimeNs === record.startTimeNs
  );
}

function print(domain: string, { pid, comm }: Process, operation: Operation, json: boolean): void {
  const { outcome, attempts, writes } = operation;
  const technique = operation.techniques.join('+') || null;
  const pausedUs = Math.round(operation.pausedUs);
  const planned = operation.edits.flatMap(describeEdit);
  if (json) {
    const entry = { domain, pid, technique, outcome, attempts, pausedUs, writes };
    const shown = outcome === 'planned' ? { ...entry, planned } : entry;
    process.stdout.write(`${JSON.stringify([shown], null, 2)}\n`);
    return;
  }
  const way = technique === null ? '' : ` by ${technique}`;
  const cost = `${attempts} ${attempts === 1 ? 'pause' : 'pauses'}, ${pausedUs} µs, ${writes} words written`;
  const tail = outcome === 'planned' ? '; nothing was written' : `; ${cost}`;
  process.stdout.write(`${domain}: ${pid} (${comm}) ${outcome}${way}${tail}\n`);
  for (const line of outcome === 'planned' ? planned : []) process.stdout.write(`  ${line}\n`);
}
