import { homedir } from 'node:os';
import path from 'node:path';
import process from 'node:process';

/** What is worth keeping over a restart: DOMSCHED_CACHE_DIR, for root the system's cache, else the user's own. */
export function cacheDirectory(env: NodeJS.ProcessEnv = process.env): string {
  const chosen = env.DOMSCHED_CACHE_DIR;
  if (chosen?.startsWith('/')) return chosen;
  if (process.getuid?.() === 0) return '/var/cache/domsched';
  const cache = env.XDG_CACHE_HOME?.startsWith('/') ? env.XDG_CACHE_HOME : path.join(homedir(), '.cache');
  return path.join(cache, 'domsched');
}
