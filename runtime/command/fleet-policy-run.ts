import { readFile } from 'node:fs/promises';
import { hostname, userInfo } from 'node:os';
import process from 'node:process';
import { text as readAll } from 'node:stream/consumers';
import Table from 'cli-table3';
import { parseFleetPolicy } from '../daemon/fleet-policy.ts';
import { DomschedError } from '../error.ts';
import { FleetClient, type HostVerdict } from '../fleet/client.ts';
import { MOST_POLICY, type StoredPolicy } from '../fleet/stored-policy.ts';
import { harmless, jsonText } from '../guest/text.ts';
import { fleetConfig } from './fleet-config.ts';
import type { FleetOptions, PolicyAction } from './fleet-options.ts';
import { PLAIN } from './plain-table.ts';

/** Runs `domsched fleet policy`. @throws DomschedError */
export async function fleetPolicy(
  action: PolicyAction | undefined,
  argument: string | undefined,
  options: FleetOptions,
): Promise<void> {
  if (action === undefined)
    throw new DomschedError(
      'usage',
      'say what to do with the policy: get, set, check, history or rollback',
      {},
    );
  await using client = await FleetClient.open(await fleetConfig(options.config));
  const print = (value: unknown, text: string) => process.stdout.write(options.json ? jsonText(value) : text);
  switch (action) {
    case 'get': {
      const found = await revisionOf(client, argument === undefined ? undefined : revision(argument));
      return void print(found, found.policy.split('\n').map(line).join('\n'));
    }
    case 'history': {
      const all = await client.policies.history();
      return void print(all, historyText(all));
    }
    case 'check': {
      const verdicts = await checked(client, await readPolicy(argument), argument!);
      refuse(verdicts, argument!);
      return void print(verdicts, `${argument}: no problem found, ${hostsText(verdicts)}\n`);
    }
    case 'set': {
      const policy = await readPolicy(argument);
      return await change(client, policy, options.comment, argument!);
    }
    case 'rollback': {
      const found = await revisionOf(client, revision(argument));
      const comment = options.comment || `back to revision ${found.revision}`;
      return await change(client, found.policy, comment, `revision ${found.revision}`);
    }
  }

  async function change(to: FleetClient, policy: string, comment: string, name: string): Promise<void> {
    // First: a policy that is set while hosts are asked must not be overwritten unseen.
    const before = await to.policies.latest();
    const verdicts = await checked(to, policy, name);
    if (!options.force) refuse(verdicts, name);
    const by = `${userInfo().username}@${hostname()}`;
    const made = await to.policies.set({ policy, by, comment }, before);
    print(
      { revision: made, hosts: verdicts },
      `revision ${made} is the policy of the fleet, ${hostsText(verdicts)}\n`,
    );
  }
}

/** Reads the text of a policy. */
async function readPolicy(file: string | undefined): Promise<string> {
  if (file === undefined)
    throw new DomschedError('usage', 'name the file with the policy, or - for the input', {});
  try {
    return file === '-' ? await readAll(process.stdin) : await readFile(file, 'utf8');
  } catch (cause) {
    const text = `${file} cannot be read: ${(cause as Error).message}`;
    throw new DomschedError('config-invalid', text, { file }, { cause });
  }
}

/** Checks a policy here and on every host that answers. @throws DomschedError `config-invalid` if it is wrong here */
async function checked(client: FleetClient, policy: string, name: string): Promise<HostVerdict[]> {
  if (policy.length > MOST_POLICY)
    throw new DomschedError('config-invalid', `${name} is longer than ${MOST_POLICY} characters`, {});
  parseFleetPolicy(policy, name);
  return client.check(policy);
}

/** @throws DomschedError `config-invalid` with what each host cannot do */
function refuse(verdicts: readonly HostVerdict[], name: string): void {
  const problems = verdicts.flatMap(({ host, version, problems: own }) =>
    own.map((problem) => `${host} (${version}): ${problem}`),
  );
  if (problems.length === 0) return;
  const list = problems.map((problem) => `\n  ${harmless(problem)}`).join('');
  throw new DomschedError('config-invalid', `${name} cannot be used by every host:${list}`, { problems });
}

function hostsText(verdicts: readonly HostVerdict[]): string {
  if (verdicts.length === 0) return 'but no host answered';
  return verdicts.length === 1 ? '1 host answered' : `${verdicts.length} hosts answered`;
}

/** TOML has no other control character than a tab: whoever writes to the store may put in any. */
function line(text: string): string {
  return text.split('\t').map(harmless).join('\t');
}

/** @throws DomschedError `usage` */
function revision(argument: string | undefined): number {
  const found = Number(argument);
  if (argument !== undefined && Number.isInteger(found) && found > 0) return found;
  throw new DomschedError('usage', 'name a revision, a number that history lists', {});
}

async function revisionOf(client: FleetClient, wanted: number | undefined): Promise<StoredPolicy> {
  const found = await client.policies.get(wanted);
  if (found !== undefined) return found;
  const what =
    wanted === undefined
      ? 'no policy yet: domsched fleet policy set FILE gives it one'
      : `no revision ${wanted} of its policy: history lists those that are kept`;
  throw new DomschedError('usage', `the fleet has ${what}`, {});
}

function historyText(all: readonly StoredPolicy[]): string {
  if (all.length === 0) return 'The fleet has no policy yet.\n';
  const table = new Table({ head: ['revision', 'set at', 'by', 'comment'], ...PLAIN });
  for (const { revision: number, at, by, comment } of all)
    table.push([number, at, harmless(by), harmless(comment)]);
  return `${table.toString()}\n`;
}
