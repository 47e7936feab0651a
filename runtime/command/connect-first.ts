/**
 * Moves a `--connect` before the command, as virsh has it, behind the command.
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
  // Without a command there is no place behind it: the program reports that.
  if (command === undefined || command.startsWith('-')) return [...argv];
  return [...argv.slice(0, 2), command, ...argv.slice(2, at), ...argv.slice(at + 1)];
}
