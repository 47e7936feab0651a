import { readFile } from 'node:fs/promises';
import { parse, TomlError } from 'smol-toml';
import type { z } from 'zod';
import { DomschedError } from '../error.ts';
import { CONFIG, type Config } from './config-schema.ts';

/**
 * Reads a configuration.
 * @throws DomschedError `config-invalid` with every problem and its place in `details.problems`
 */
export async function readConfig(file: string): Promise<Config> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw invalid(file, [`cannot be read: ${reason}`], cause);
  }
  return parseConfig(text, file);
}

/** Like {@link readConfig}, from text. */
export function parseConfig(text: string, file: string): Config {
  return parseToml(CONFIG, text, file);
}

/** @throws DomschedError `config-invalid` with every problem and its place in `details.problems` */
export function parseToml<T extends z.ZodType>(schema: T, text: string, file: string): z.output<T> {
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    throw invalid(file, [`line ${cause.line}: ${cause.message.split('\n')[0]}`], cause);
  }
  const result = schema.safeParse(raw);
  if (result.success) return result.data;
  throw invalid(
    file,
    result.error.issues.map(({ path, message }) => `${place(path)}${message}`),
    result.error,
  );
}

/** For example `policy[2].select[1].comm: `; indices start at 0, so this is the third policy. */
function place(path: readonly PropertyKey[]): string {
  if (path.length === 0) return '';
  const keys = path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`));
  return `${keys.join('').replace(/^\./, '')}: `;
}

function invalid(file: string, problems: readonly string[], cause: unknown): DomschedError {
  const list = problems.map((problem) => `\n  ${problem}`).join('');
  return new DomschedError(
    'config-invalid',
    `${file} is no valid configuration:${list}`,
    { file, problems },
    { cause },
  );
}
