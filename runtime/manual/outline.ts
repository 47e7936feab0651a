import type { Argument, Command, Option } from 'commander';

/** What a value is, as far as a shell can help with it. */
export type Value = { readonly choices: readonly string[] } | 'file' | 'other';

export interface OutlineOption {
  /** `-o`, `--output`. */
  readonly flags: readonly string[];
  /** As in the help: `-o, --output <file>`. */
  readonly usage: string;
  readonly description: string;
  /** Undefined for one that takes none. */
  readonly value: Value | undefined;
}

export interface OutlineArgument {
  readonly usage: string;
  readonly description: string;
  readonly value: Value;
  /** It takes all words that are left. */
  readonly isRepeated: boolean;
}

export interface OutlineCommand {
  readonly name: string;
  readonly usage: string;
  readonly description: string;
  readonly options: readonly OutlineOption[];
  readonly arguments: readonly OutlineArgument[];
}

/** The commands of the program, from what their own help is made of: nothing here can say anything else. */
export function outline(program: Command): OutlineCommand[] {
  const help = program.createHelp();
  return help.visibleCommands(program).map((command) => ({
    name: command.name(),
    usage: `${program.name()} ${command.name()} ${command.usage()}`,
    description: help.commandDescription(command),
    options: help.visibleOptions(command).map(outlineOption),
    arguments: help.visibleArguments(command).map((argument) => ({
      usage: argument.name(),
      description: help.argumentDescription(argument),
      value: kindOf(argument.argChoices, argument.name()),
      isRepeated: argument.variadic,
    })),
  }));

  function outlineOption(option: Option): OutlineOption {
    const takesValue = option.required || option.optional;
    const placeholder = /[<[]([^>\]]*)[>\]]/.exec(option.flags)?.[1] ?? '';
    return {
      flags: [option.short, option.long].filter((flag) => flag !== undefined),
      usage: help.optionTerm(option),
      description: help.optionDescription(option),
      value: takesValue ? kindOf(option.argChoices, placeholder) : undefined,
    };
  }
}

/** The options of the program itself. */
export function programOptions(program: Command): { usage: string; description: string; flags: string[] }[] {
  const help = program.createHelp();
  return help.visibleOptions(program).map((option) => ({
    usage: help.optionTerm(option),
    description: help.optionDescription(option),
    flags: [option.short, option.long].filter((flag) => flag !== undefined),
  }));
}

function kindOf(choices: Argument['argChoices'], placeholder: string): Value {
  if (choices !== undefined && choices.length > 0) return { choices };
  return /file|dir|folder|path/i.test(placeholder) ? 'file' : 'other';
}
