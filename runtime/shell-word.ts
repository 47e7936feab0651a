/** A word as a shell takes it: what a message advises to run may have any name in it, a guest's too. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
