import { readFileSync } from 'node:fs';

/** Where package.json is: one level up from this folder in a checkout, two once compiled into `dist/`. */
const packageUrl = new URL(
  import.meta.url.endsWith('.ts') ? '../package.json' : '../../package.json',
  import.meta.url,
);

/** Version of this installation, as in its package.json. */
export function version(): string {
  return (JSON.parse(readFileSync(packageUrl, 'utf8')) as { version: string }).version;
}
