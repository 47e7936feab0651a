import process from 'node:process';
import type { Control, EditAnswer } from '../control/control.ts';
import { openControl } from '../control/open.ts';
import { DomschedError, exitCodeOf } from '../error.ts';
import { harmless, jsonText, printable } from '../guest/text.ts';

export interface EditOptions {
  connect?: string[];
  json?: true;
  dryRun?: true;
  force?: true;
  timeout?: number;
  technique?: 'auto' | 'splice' | 'state' | 'park';
  all?: true;
  group?: true;
}

/** Runs `domsched hold`. @throws DomschedError */
export async function hold(domain: string, target: string, options: EditOptions): Promise<void> {
  const { technique, force, dryRun, timeout } = options;
  const asked = { domain, process: target, technique, force, dryRun, timeout };
  await edit(options, (control) => control.hold(asked));
}

/** Runs `domsched release`. @throws DomschedError */
export async function release(
  domain: string | undefined,
  target: string | undefined,
  options: EditOptions,
): Promise<void> {
  const { dryRun, timeout } = options;
  if (options.all ? domain !== undefined : domain === undefined || target === undefined)
    throw new DomschedError('usage', 'give a domain and a process, or --all', {});
  if (options.all) return releaseAll(options);
  await edit(options, (control) => control.release({ domain: domain!, process: target!, dryRun, timeout }));
}

/** Runs `domsched renice`. @throws DomschedError */
export async function renice(
  domain: string,
  target: string,
  nice: number,
  options: EditOptions,
): Promise<void> {
  const { group, dryRun, timeout } = options;
  const asked = { domain, process: target, nice, group, dryRun, timeout };
  await edit(options, (control) => control.renice(asked));
}

async function edit(
  { connect, json }: EditOptions,
  perform: (control: Control) => Promise<EditAnswer>,
): Promise<void> {
  await using control = await openControl(connect);
  print([await perform(control)], json);
}

async function releaseAll({ connect, json, timeout }: EditOptions): Promise<void> {
  await using control = await openControl(connect);
  const { released, failures, notes } = await control.releaseAll({ timeout });
  for (const note of notes) process.stderr.write(`domsched: ${harmless(note)}\n`);
  for (const { domain, code, message } of failures)
    process.stderr.write(`domsched: ${printable(domain)}: ${harmless(message)} [${code}]\n`);
  if (released.length > 0 || json) print(released, json);
  else if (failures.length === 0) process.stdout.write('nothing is held\n');
  const codes = failures.filter(({ ended }) => !ended).map(({ code }) => exitCodeOf(code as never));
  if (codes.length > 0) process.exitCode = Math.max(...codes);
}

function print(answers: readonly EditAnswer[], json: boolean | undefined): void {
  if (json) {
    const shown = answers.map((answer) => {
      const { domain, pid, techniques, outcome, attempts, pausedUs, writes, members, planned } = answer;
      const technique = techniques.join('+') || null;
      const common = { domain, pid, technique, outcome, attempts, pausedUs, writes };
      return { ...common, ...(members && { members }), ...(outcome === 'planned' && { planned }) };
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
