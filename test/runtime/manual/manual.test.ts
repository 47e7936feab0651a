import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Command, Option } from 'commander';
import { execa } from 'execa';
import { makeProgram } from '../../../program.ts';
import { completion } from '../../../runtime/manual/completion.ts';
import { manualPage } from '../../../runtime/manual/man-page.ts';

const program = await makeProgram();
const commands = program.commands.map((command) => command.name()).filter((name) => name !== 'manual');

test('a command is the same where the others were not loaded', async (t) => {
  for (const name of ['extract', ...commands]) {
    const alone = (await makeProgram(name)).commands.find((command) => command.name() === name);
    const among = program.commands.find((command) => command.name() === name);
    t.is(alone?.helpInformation(), among?.helpInformation(), name);
  }
  t.is((await makeProgram('extract')).commands.length, 1);
  for (const name of ['help', 'completion', 'no-such-command']) {
    t.is((await makeProgram(name)).commands.length, program.commands.length);
  }
});

async function script(t: ExecutionContext, text: string): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'completion-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'script');
  await writeFile(file, text);
  return file;
}

/** What bash offers for the last of some words, sorted. */
async function bashOffers(t: ExecutionContext, ...words: string[]): Promise<string[]> {
  const file = await script(t, completion(program, 'bash'));
  const ask = `source ${file}; shift 0; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _domsched; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = await execa('bash', ['-uc', ask, 'bash', 'domsched', ...words]);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .sort();
}

async function fishOffers(t: ExecutionContext, line: string): Promise<string[]> {
  const file = await script(t, completion(program, 'fish'));
  const home = await mkdtemp(path.join(tmpdir(), 'fish-'));
  t.teardown(() => rm(home, { recursive: true, force: true }));
  const { stdout } = await execa('fish', ['--no-config', '-c', `source ${file}; complete -C '${line}'`], {
    env: { HOME: home, XDG_CONFIG_HOME: home, XDG_DATA_HOME: home },
  });
  return stdout
    .split('\n')
    .map((found) => found.split('\t')[0]!)
    .sort();
}

test('bash completes every command, its options and their values', async (t) => {
  t.deepEqual(await bashOffers(t, ''), [...commands, 'help'].toSorted());
  t.deepEqual(await bashOffers(t, 'ho'), ['hold']);
  t.deepEqual(await bashOffers(t, 'hold', '--technique', ''), ['auto', 'park', 'splice', 'state']);
  t.deepEqual(await bashOffers(t, 'hold', '--technique', 's'), ['splice', 'state']);
  t.deepEqual(await bashOffers(t, 'hold', '--connect', ''), []);
  t.deepEqual(await bashOffers(t, 'completion', ''), ['bash', 'fish', 'zsh']);
  for (const command of program.commands.filter((found) => found.name() !== 'manual')) {
    const offers = await bashOffers(t, command.name(), '--');
    for (const { long } of command.options) t.true(offers.includes(long!), `${command.name()} ${long}`);
  }
  const file = await script(t, '');
  const start = file.slice(0, -3);
  t.deepEqual(await bashOffers(t, 'report', start), [file]);
  t.deepEqual(await bashOffers(t, 'trace', '-o', start), [file]);
});

test('fish completes every command, its options and their values', async (t) => {
  t.deepEqual(await fishOffers(t, 'domsched '), [...commands, 'help'].toSorted());
  t.deepEqual(await fishOffers(t, 'domsched hold --technique s'), ['splice', 'state']);
  const offers = await fishOffers(t, 'domsched trace --');
  const trace = program.commands.find((command) => command.name() === 'trace')!;
  for (const { long } of trace.options) t.true(offers.includes(long!), long);
});

test('zsh takes its script, which has every command and option', async (t) => {
  const text = completion(program, 'zsh');
  const file = await script(t, text);
  await execa('zsh', ['-n', file]);
  // Defined in an interactive shell's way, it must not fail either.
  const ask = `autoload -U compinit; compinit -u -D; source ${file}; print $_comps[domsched]`;
  const { stdout } = await execa('zsh', ['-fc', ask]);
  t.is(stdout, '_domsched');
  for (const command of program.commands.filter((found) => found.name() !== 'manual')) {
    t.regex(text, new RegExp(`^ {8}${command.name()}\\)$`, 'm'));
    for (const { long } of command.options) t.true(text.includes(`*${long}[`), long);
  }
});

test('the manual page has every command and option, and is right roff', async (t) => {
  const page = manualPage(program);
  const file = await script(t, page);
  const lint = await execa('mandoc', ['-T', 'lint', '-W', 'error', file], { reject: false, all: true });
  t.is(lint.exitCode, 0, lint.all);
  const { stdout } = await execa('mandoc', ['-T', 'ascii', '-O', 'width=200', file]);
  // Bold and underlined letters are overstruck.
  const text = stdout.replace(/.\x08/g, '');
  for (const command of program.commands.filter((found) => found.name() !== 'manual')) {
    t.true(text.includes(`domsched ${command.name()} `), command.name());
    t.true(text.toLowerCase().includes(command.description().toLowerCase()), command.name());
    for (const { flags } of command.options) t.true(text.includes(flags), flags);
  }
});

test('no text of a command can be anything but text to a shell or to roff', async (t) => {
  const strange = `.it's "a" $(touch /tmp/x) \`b\` \\c [d]:e 'f`;
  const other = new Command('domsched').description(strange).version('1');
  other
    .command('one')
    .description(strange)
    .addOption(new Option('--two <file>', strange))
    .argument('<three>', strange);
  for (const shell of ['bash', 'zsh', 'fish'] as const) {
    const file = await script(t, completion(other, shell));
    await execa(shell, [shell === 'fish' ? '--no-execute' : '-n', file]);
  }
  const file = await script(t, manualPage(other));
  const { stdout } = await execa('mandoc', ['-T', 'ascii', '-O', 'width=200', file]);
  t.is(stdout.replace(/.\x08/g, '').split(strange.slice(1)).length - 1 >= 3, true);
});
