import type { Command } from 'commander';
import { type OutlineCommand, type OutlineOption, outline, programOptions, type Value } from './outline.ts';

/** A script that makes a shell complete the program's commands, options and their values. */
export function completion(program: Command, shell: 'bash' | 'zsh' | 'fish'): string {
  const commands = outline(program);
  const own = programOptions(program).flatMap(({ flags }) => flags);
  return { bash, zsh, fish }[shell](program.name(), commands, own);
}

function bash(name: string, commands: readonly OutlineCommand[], own: readonly string[]): string {
  const values = commands.flatMap((command) =>
    command.options.flatMap(({ flags, value }) => {
      if (value === undefined) return [];
      const patterns = flags.map((flag) => word(`${command.name} ${flag}`)).join('|');
      return [`    ${patterns}) ${bashValue(value)} return ;;`];
    }),
  );
  const options = commands.map(
    ({ name: command, options: list }) =>
      `      ${command}) words=${word(list.flatMap(({ flags }) => flags).join(' '))} ;;`,
  );
  const targets = commands.flatMap((command) => {
    const files = command.arguments.some(({ value }) => value === 'file');
    const choices = command.arguments.flatMap(({ value }) => choicesOf(value));
    if (files)
      return [`    ${command.name}) compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")) ;;`];
    return choices.length > 0
      ? [`    ${command.name}) COMPREPLY=($(compgen -W ${word(choices.join(' '))} -- "$current")) ;;`]
      : [];
  });
  return `# Completion of ${name} for bash: source it, or put it where bash-completion looks.
_${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} command= words= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \${COMP_WORDS[i]} in
      -*) ;;
      *) command=\${COMP_WORDS[i]}; break ;;
    esac
  done
  case "$command $before" in
${values.join('\n')}
  esac
  if [[ $current == -* ]]; then
    case $command in
      '') words=${word(own.join(' '))} ;;
${options.join('\n')}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    return
  fi
  case $command in
    '') COMPREPLY=($(compgen -W ${word(commands.map(({ name: command }) => command).join(' '))} -- "$current")) ;;
${targets.join('\n')}
  esac
}
complete -F _${name} ${name}
`;
}

function bashValue(value: Value): string {
  if (value === 'file') return 'compopt -o filenames; COMPREPLY=($(compgen -f -- "$current"));';
  const choices = choicesOf(value);
  return choices.length > 0 ? `COMPREPLY=($(compgen -W ${word(choices.join(' '))} -- "$current"));` : '';
}

function zsh(name: string, commands: readonly OutlineCommand[], own: readonly string[]): string {
  const described = commands.map(({ name: command, description }) => word(`${command}:${description}`));
  const cases = commands.map((command) => {
    const specs = [
      ...command.options.flatMap(zshOption),
      ...command.arguments.map(({ usage, value, isRepeated }, i) =>
        word(`${isRepeated ? '*' : i + 1}:${bare(usage)}:${zshValue(value)}`),
      ),
    ];
    return `        ${command.name})\n          _arguments ${specs.join(' ')} ;;`;
  });
  return `#compdef ${name}
# Completion of ${name} for zsh: put it as _${name} where $fpath leads.
_${name}() {
  local -a commands
  commands=(${described.join(' ')})
  _arguments -C ${own.map((flag) => word(flag)).join(' ')} '1:command:->command' '*::argument:->argument'
  case $state in
    command) _describe command commands ;;
    argument)
      case $words[1] in
${cases.join('\n')}
      esac ;;
  esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _${name} "$@"
else
  compdef _${name} ${name}
fi
`;
}

function zshOption({ flags, description, value }: OutlineOption): string[] {
  const target = value === undefined ? '' : `:value:${zshValue(value)}`;
  // An option may be given again.
  return flags.map((flag) => word(`*${flag}[${bare(description)}]${target}`));
}

function zshValue(value: Value): string {
  if (value === 'file') return '_files';
  const choices = choicesOf(value);
  return choices.length > 0 ? `(${choices.join(' ')})` : ' ';
}

function fish(name: string, commands: readonly OutlineCommand[], own: readonly string[]): string {
  const lines = [`# Completion of ${name} for fish.`, `complete -c ${name} -f`];
  for (const flag of own) lines.push(`complete -c ${name} -n __fish_use_subcommand ${fishFlag(flag)}`);
  for (const command of commands) {
    const { name: called, description } = command;
    lines.push(`complete -c ${name} -n __fish_use_subcommand -a ${called} -d ${fishWord(description)}`);
    const seen = `-n ${fishWord(`__fish_seen_subcommand_from ${called}`)}`;
    for (const { flags, description: what, value } of command.options) {
      const target = value === undefined ? '' : ` ${fishValue(value)}`;
      lines.push(
        `complete -c ${name} ${seen} ${flags.map(fishFlag).join(' ')} -d ${fishWord(what)}${target}`,
      );
    }
    for (const { value } of command.arguments) {
      if (value === 'file') lines.push(`complete -c ${name} ${seen} -F`);
      else if (value !== 'other') {
        lines.push(`complete -c ${name} ${seen} -a ${fishWord(choicesOf(value).join(' '))}`);
      }
    }
  }
  return `${lines.join('\n')}\n`;
}

function fishFlag(flag: string): string {
  return flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`;
}

function fishValue(value: Value): string {
  if (value === 'file') return '-r -F';
  const choices = choicesOf(value);
  return choices.length > 0 ? `-x -a ${fishWord(choices.join(' '))}` : '-x';
}

function choicesOf(value: Value): readonly string[] {
  return typeof value === 'string' ? [] : value.choices;
}

/** A word of bash and zsh. */
function word(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function fishWord(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&')}'`;
}

/** Text within a specification of _arguments. */
function bare(text: string): string {
  return text.replace(/[\\:[\]]/g, '\\$&');
}
