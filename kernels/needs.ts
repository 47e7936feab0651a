/**
 * `npm run needs` writes `extractor/needs.ts`, the default request of an extraction, from what the runtime declares
 * that it reads (`runtime/members/`). Neither of the two imports the other.
 */
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { MEMBERS } from '../runtime/members/members.ts';
import { ENUMERATORS, SYMBOLS } from '../runtime/members/symbols.ts';
import { projectDirectory } from './paths.ts';

export const needsFile = path.join(projectDirectory, 'extractor/needs.ts');

/** The text of {@link needsFile}. */
export function needsText(): string {
  const list = (name: string, what: string, entries: readonly string[]) =>
    `/** ${what} */\nexport const ${name}: readonly string[] = \`\n${[...entries].sort().join('\n')}\n\`\n` +
    "  .trim()\n  .split('\\n');\n";
  return [
    '// Written by `npm run needs` from runtime/members/. Do not edit: declare there.\n',
    list(
      'STRUCTURES',
      'Structures by canonical name. Structures that they embed are extracted too.',
      Object.keys(MEMBERS),
    ),
    list('ENUMERATORS', 'Enumerators of any enumeration.', ENUMERATORS),
    list('SYMBOLS', 'Symbols. A kernel has only those of its version and configuration.', SYMBOLS),
  ].join('\n');
}

/** Digest of what an extraction asks for: a layout for which less was asked is extracted again. */
export function needsDigest(): string {
  return createHash('sha256').update(needsText()).digest('hex').slice(0, 16);
}

if (import.meta.main) await writeFile(needsFile, needsText());
