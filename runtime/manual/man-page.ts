import type { Command } from 'commander';
import { type OutlineCommand, outline, programOptions } from './outline.ts';

/**
 * The manual page in the man macros of roff, made from the program itself. It has no date: built from the same sources
 * it is the same.
 */
export function manualPage(program: Command): string {
  const name = program.name();
  const version = program.version() ?? '';
  const lines = [
    `.TH ${quoted(name.toUpperCase())} 8 "" ${quoted(`${name} ${version}`)} ${quoted('System administration')}`,
    '.SH NAME',
    `${text(name)} \\- ${text(lowerFirst(program.description()).replace(/\.$/, ''))}`,
    '.SH SYNOPSIS',
    `.B ${text(name)}`,
    '.I command',
    '[arguments]',
    '.SH DESCRIPTION',
    text(program.description()),
    'The processes of guests are read, and their run queues edited, from outside; the guests stay as they are.',
    'A domain is paused only for the moment of an edit.',
    '.SH OPTIONS',
    ...programOptions(program).flatMap((option) => item(option.usage, option.description)),
    '.SH COMMANDS',
    ...outline(program).flatMap(commandSection),
    '.SH EXIT STATUS',
    ...item('0', 'done'),
    ...item('1', 'failed'),
    ...item('2', 'wrong usage'),
    ...item('3', 'refused for safety; nothing was changed'),
    '.SH FILES',
    ...item('/etc/domsched.toml', 'the configuration of the daemon'),
    ...item('/run/domsched/*.sock', 'QMP sockets of QEMU that are found without --connect'),
    ...item('/run/domsched/control', 'the control socket of the daemon'),
    ...item('/run/domsched/held', 'what is held now, one file for each process'),
    ...item(
      '~/.local/share/domsched/layouts',
      "the user's own layouts of kernels, beside those that are shipped",
    ),
    '.SH ENVIRONMENT',
    ...item('DOMSCHED_CONNECT', 'what --connect takes, separated by spaces, for where no option is given'),
    ...item('DOMSCHED_RUNTIME_DIR', 'another place than /run/domsched'),
    ...item('XDG_DATA_HOME', 'another place than ~/.local/share'),
    ...item('NO_COLOR', 'no colours, on a terminal either'),
    '.SH EXAMPLES',
    ...example(
      'Which domains there are, and what runs in them:',
      `${name} domains`,
      `${name} ps --sort time`,
    ),
    ...example(
      'Stop a process until it is released:',
      `${name} hold batch backup`,
      `${name} release batch backup`,
    ),
    ...example(
      'Record a minute, and draw it:',
      `${name} trace -o minute.trace --for 60`,
      `${name} report minute.trace`,
    ).slice(0, -1),
  ];
  return `${lines.join('\n')}\n`;
}

function commandSection(command: OutlineCommand): string[] {
  return [
    `.SS ${quoted(command.usage)}`,
    sentence(command.description),
    ...command.arguments.flatMap(({ usage, description }) => item(usage, description)),
    ...command.options.flatMap(({ usage, description }) => item(usage, description)),
  ];
}

function item(term: string, description: string): string[] {
  return ['.TP', `.B ${text(term)}`, text(description) || '\\ '];
}

function example(what: string, ...commands: string[]): string[] {
  return [text(what), '.PP', '.nf', ...commands.map((command) => `.B ${text(command)}`), '.fi', '.PP'];
}

/** Text that roff takes as nothing but text. */
function text(value: string): string {
  return value
    .replace(/\\/g, '\\e')
    .replace(/-/g, '\\-')
    .replace(/\s+/g, ' ')
    .replace(/^(?=[.'])/, '\\&');
}

/** An argument of a macro. */
function quoted(value: string): string {
  return `"${text(value).replace(/"/g, '\\(dq')}"`;
}

function sentence(value: string): string {
  const trimmed = text(value);
  return `${trimmed.charAt(0).toUpperCase()}${trimmed.slice(1)}${/[.!?]$/.test(trimmed) ? '' : '.'}`;
}

function lowerFirst(value: string): string {
  return value.charAt(0).toLowerCase() + value.slice(1);
}
