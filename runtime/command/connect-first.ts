/**
 * A command line as the program takes it: `--connect` before the command, where virsh has it, goes behind it.
 * @param argv node, the script, and what was typed
 */
export function connectBehindCommand(argv: readonly string[]): string[] {
  let at = 2;
  while (at < argv.length) {
    if (argv[at] === '--connect') at += 2;
    else if (argv[at]!.startsWith('--connect=')) at += 1;
    else break;
  }
  const command = argv[at];
  // Without a command there is nothing to put it behind: the program says so.
  if (command === undefined || command.startsWith('-')) return [...argv];
  return [...argv.slice(0, 2), command, ...argv.slice(2, at), ...argv.slice(at + 1)];
}
