import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DomschedError } from '../error.ts';

export interface Asset {
  readonly type: string;
  readonly bytes: Buffer;
}

/** The page is compiled for browsers, so a checkout has it only in `dist/`. */
const compiled = new URL(
  import.meta.url.endsWith('.ts') ? '../../dist/runtime/web/page/' : './page/',
  import.meta.url,
);

/** Modules that the page shares with the rest of the program. */
const SHARED: Readonly<Record<string, string>> = {
  '/trace/decode.js': '../../trace/decode.js',
  '/trace/fleet-delta.js': '../../trace/fleet-delta.js',
  '/tick/culprit.js': '../../tick/culprit.js',
  '/tick/problems.js': '../../tick/problems.js',
};

const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
};

/**
 * All files of the page by path; nothing else is served.
 * @throws DomschedError `config-invalid` in a checkout that is not built
 */
export function loadAssets(): ReadonlyMap<string, Asset> {
  const index = new URL('index.html', compiled);
  if (!existsSync(index)) {
    throw new DomschedError('config-invalid', 'the page is not built; run npm run build', {
      path: fileURLToPath(index),
    });
  }
  const assets = new Map<string, Asset>();
  const add = (path: string, file: string) => {
    const type = TYPES[file.split('.').at(-1)!];
    if (type === undefined || file.endsWith('.d.ts')) return;
    assets.set(path, { type, bytes: readFileSync(new URL(file, compiled)) });
  };
  for (const file of readdirSync(compiled)) add(`/page/${file}`, file);
  for (const [path, file] of Object.entries(SHARED)) add(path, file);
  assets.set('/', assets.get('/page/index.html')!);
  return assets;
}
