import process from 'node:process';
import { askDaemon } from '../daemon/ask-daemon.ts';
import type { EditAnswer, ReleaseAllAnswer } from '../daemon/control-protocol.ts';
import { describeEdit } from '../edit/edit.ts';
import { DomschedError } from '../error.ts';
import { findProcess } from '../guest/find-process.ts';
import type { Process } from '../guest/process.ts';
import { harmless, jsonText, printable } from '../guest/text.ts';
import { connectAll } from '../hypervisor/connect.ts';
import type { Domain } from '../hypervisor/types.ts';
import { knownKernels } from '../layout/registry.ts';
import type { HeldRecord } from '../surgeon/journal.ts';
import { isRecordOf, JournaledSurgeon, Journals } from '../surgeon/journaled-surgeon.ts';
import { hasMachineEnded, livingMachine } from '../surgeon/machine-ended.ts';
import type { OperateOptions, Operation } from '../surgeon/surgeon.ts';
import type { EditOptions } from './edit.ts';

/** Runs `domsched hold`. @throws DomschedError */
export async function hold(domain: string, target: string, options: EditOptions): Promise<void> {
  const { technique = 'auto', force = false } = options;
  await edit('hold', domain, target, options, { technique, force }, (surgeon, found, limits) =>
    surgeon.hold(found, { ...limits, ...(technique !== 'auto' && { techniques: [technique] }), force }),
  );
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
  await edit('release', domain, target, options, {}, (surgeon, found, limits) =>
    surgeon.release(found, limits),
  );
}

/** Runs `domsched renice`. @throws DomschedError */
export async function renice(
  domain: string,
  target: string,
  nice: number,
  options: EditOptions,
): Promise<void> {
  const { group = false } = options;
  await edit('renice', domain, target, options, { nice, group }, (surgeon, found, limits) =>
    group ? surgeon.reniceGroup(found, nice, limits) : surgeon.renice(found, nice, limits),
  );
}

type Perform = (surgeon: JournaledSurgeon, found: Process, options: OperateOptions) => Promise<Operation>;

/** Has the daemon do it where one runs that has the domain; else does it here. */
async function edit(
  op: string,
  domainName: string,
  target: string,
  options: EditOptions,
  parameters: object,
  perform: Perform,
): Promise<void> {
  const limits = limitsOf(options);
  const { connect = [], json = false } = options;
  const asked = await askDaemon<EditAnswer>(op, {
    ...parameters,
    domain: domainName,
    process: target,
    connect,
    timeout: options.timeout ?? DEFAULT_TIMEOUT_S,
    dryRun: limits.dryRun,
  });
  if (asked !== undefined) return print([asked], json);
  await using hosts = await connectAll(connect);
  await using domain = await hosts.open(domainName);
  await withSurgeon(domain, async (surgeon) => {
    const { processes } = await surgeon.guest.take({ withoutQueues: true });
    const found = findProcess(domain.identity.name, processes, target);
    print([answerOf(domain, found, await perform(surgeon, found, limits))], json);
  });
}

/** Everything in the journals. One that fails does not keep the others from being put back. */
async function releaseAll(options: EditOptions): Promise<void> {
  const { connect = [], json = false } = options;
  const timeout = options.timeout ?? DEFAULT_TIMEOUT_S;
  const asked = await askDaemon<ReleaseAllAnswer>('releaseAll', { connect, timeout });
  const answers = [...(asked?.released ?? [])];
  const failures: { domain: string; code: string; message: string }[] = [...(asked?.failures ?? [])];
  const failedCodes = failures.map(({ code }) => new DomschedError(code as never, '').exitCode as number);
  const journals = new Journals();
  const served = new Set(asked === undefined ? [] : await daemonDomains(connect));
  const holds = await journals.held.list();
  const records = [...holds, ...(await journals.changes.list())];
  const domains = new Map<string, { name: string; connection: string }>(
    records.map(({ domain, name, connection }) => [domain, { name, connection }]),
  );
  // Whoever was held elsewhere, before a migration or a restart, is in no journal of ours: the guests tell. Where a
  // daemon runs it has looked into its own, and nobody else reaches them.
  if (asked === undefined) {
    await using hosts = await connectAll(connect);
    for (const { listing } of await hosts.list()) {
      const { id, name, connection } = listing.identity;
      if (domains.has(id)) continue;
      if (!('error' in listing)) domains.set(id, { name, connection });
      // Where nobody listens, and of which nothing is written down, there is no machine.
      else if (!['ECONNREFUSED', 'ENOENT'].includes(String(listing.error.details.errno))) {
        failedCodes.push(listing.error.exitCode);
        failures.push({ domain: name, code: listing.error.code, message: listing.error.message });
      }
    }
  }
  for (const [id, { name, connection }] of domains) {
    if (served.has(id)) continue;
    try {
      answers.push(...(await putBack(id, connect.length > 0 ? connect : [connection], options, journals)));
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      const own = records.filter(({ domain }) => domain === id);
      // What cannot be edited, and that we have not edited, holds nobody.
      if (own.length === 0 && NOT_EDITED.has(error.code)) continue;
      const held = holds.filter(({ domain }) => domain === id);
      const living = livingMachine(own);
      const ended = hasMachineEnded(own, error);
      if (ended) await forget(id, journals);
      // A machine that has ended took along whom we held; one that was migrated or saved did not let them go.
      if (!ended || held.length > 0) failedCodes.push(error.exitCode);
      const kept = living && `; process ${living.pid} of it still runs, so what we wrote down of it is kept`;
      const message = `${error.message}${kept ?? ''}${ended ? heldThere(held) : ''}`;
      failures.push({ domain: name, code: error.code, message });
    }
  }
  for (const { domain, code, message } of failures) {
    process.stderr.write(`domsched: ${printable(domain)}: ${harmless(message)} [${code}]\n`);
  }
  if (answers.length > 0 || json) print(answers, json);
  else if (failures.length === 0) process.stdout.write('nothing is held\n');
  if (failedCodes.length > 0) process.exitCode = Math.max(...failedCodes);
}

/** All that the journals have of one domain: holds, nice values, share. @throws DomschedError the first failure */
async function putBack(
  id: string,
  connect: readonly string[],
  options: EditOptions,
  journals: Journals,
): Promise<EditAnswer[]> {
  await using hosts = await connectAll(connect);
  await using domain = await hosts.open(id);
  const answers: EditAnswer[] = [];
  const failures: unknown[] = [];
  const attempt = async (what: () => Promise<EditAnswer | undefined>) => {
    try {
      const answer = await what();
      if (answer !== undefined) answers.push(answer);
    } catch (error) {
      if (!(error instanceof DomschedError && error.code === 'process-not-found')) failures.push(error);
    }
  };
  await withSurgeon(
    domain,
    async (surgeon) => {
      for (const { pid, comm } of await surgeon.search()) {
        const who = printable(`${domain.identity.name}: ${pid} (${comm})`);
        process.stderr.write(`domsched: ${who} is held, and no record tells by whom: letting it go\n`);
      }
      const { processes } = await surgeon.guest.take({ withoutQueues: true });
      for (const record of surgeon.held()) {
        const found = processes.find((candidate) => isRecordOf(record, candidate));
        if (found === undefined)
          await surgeon.forget({ ...record, address: BigInt(record.address) as never });
        else
          await attempt(async () => answerOf(domain, found, await surgeon.release(found, limitsOf(options))));
      }
      for (const found of processes) {
        if (surgeon.niceRecord(found) === undefined) continue;
        await attempt(async () => {
          const operation = await surgeon.niceBack(found, limitsOf(options));
          return operation && answerOf(domain, found, operation);
        });
      }
    },
    journals,
  );
  await shareBack(domain, journals);
  if (failures.length > 0) throw failures[0];
  return answers;
}

async function shareBack(domain: Domain, journals: Journals): Promise<void> {
  if (domain.scheduler === undefined) return;
  const { DomainShareKeeper } = await import('../watch/domain-share.ts');
  const { identity } = domain;
  const owner = { connection: identity.connection, domain: identity.id, name: identity.name };
  const share = await DomainShareKeeper.open(domain.scheduler, journals.changes, {
    ...owner,
    hypervisorPid: identity.pid ?? null,
  });
  for (const kind of ['weight', 'cap'] as const) if (share.isSet(kind)) await share.back(kind);
}

function heldThere(held: readonly HeldRecord[]): string {
  if (held.length === 0) return '';
  const who = held.map(({ pid, comm }) => `${pid} (${comm})`).join(', ');
  return `; ${who} was held there: if it was migrated or saved, run domsched release --all where it runs next`;
}

/** A machine that ended left nothing to put back. */
async function forget(id: string, journals: Journals): Promise<void> {
  for (const record of await journals.held.list())
    if (record.domain === id) await journals.held.remove(record);
  for (const record of await journals.changes.list()) {
    if (record.domain === id) await journals.changes.remove(record);
  }
}

async function withSurgeon(
  domain: Domain,
  perform: (surgeon: JournaledSurgeon) => Promise<void>,
  journals = new Journals(),
): Promise<void> {
  const surgeon = await JournaledSurgeon.open(domain, await knownKernels(), journals);
  try {
    await perform(surgeon);
  } finally {
    surgeon.detach();
  }
}

async function daemonDomains(connect: readonly string[]): Promise<string[]> {
  const found = await askDaemon<{ id: string }[]>('domains', { connect });
  return (found ?? []).map(({ id }) => id);
}

const NOT_EDITED: ReadonlySet<string> = new Set(['refused', 'capability-missing']);
const DEFAULT_TIMEOUT_S = 5;

function limitsOf({ timeout = DEFAULT_TIMEOUT_S, dryRun }: EditOptions) {
  return { limitMs: timeout * 1000, dryRun: dryRun ?? false };
}

function answerOf(domain: Domain, { pid, comm }: Process, operation: Operation): EditAnswer {
  const { outcome, techniques, attempts, pausedUs, writes, kept, members, edits } = operation;
  const planned = outcome === 'planned' ? edits.flatMap(describeEdit) : [];
  const { name } = domain.identity;
  return {
    domain: name,
    pid,
    comm,
    outcome,
    techniques,
    attempts,
    pausedUs: Math.round(pausedUs),
    writes,
    ...(kept > 0 && { kept }),
    ...(members && { members }),
    planned,
  };
}

function print(answers: readonly EditAnswer[], json: boolean): void {
  if (json) {
    const shown = answers.map((answer) => {
      const { domain, pid, techniques, outcome, attempts, pausedUs, writes, members, planned } = answer;
      const technique = techniques.join('+') || null;
      const common = { domain, pid, technique, outcome, attempts, pausedUs, writes };
      const entry = members === undefined ? common : { ...common, members };
      return outcome === 'planned' ? { ...entry, planned } : entry;
    });
    process.stdout.write(jsonText(shown));
    return;
  }
  for (const answer of answers) {
    const { domain, pid, comm, outcome, techniques, attempts, pausedUs, writes, members, planned } = answer;
    const group = members === undefined ? '' : ` with its group (pid ${members.join(', ')})`;
    const way = techniques.length === 0 ? '' : ` by ${techniques.join('+')}`;
    const cost = `${attempts} ${attempts === 1 ? 'pause' : 'pauses'}, ${pausedUs} µs, ${writes} words written`;
    const tail = outcome === 'planned' ? '; nothing was written' : `; ${cost}`;
    process.stdout.write(`${printable(domain)}: ${pid} (${comm}) ${outcome}${group}${way}${tail}\n`);
    if (outcome === 'held' && techniques.some((technique) => technique !== 'park'))
      process.stdout.write('  while it is held so the guest cannot suspend itself\n');
    if (answer.kept !== undefined)
      process.stdout.write(
        `  the structures of ${answer.kept} ended tasks stay in the guest until it is restarted\n`,
      );
    for (const line of planned) process.stdout.write(`  ${harmless(line)}\n`);
  }
}
