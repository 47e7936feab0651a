import { spawn, spawnSync } from 'node:child_process';
import { readdirSync, readlinkSync, realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
/** What the source is compiled to is the same for each test: a third of a short run. */
const env = { ...process.env, NODE_COMPILE_CACHE: `${root}.cache/compiled` };

export interface CliResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs the program from its TypeScript source, as a user's shell would: no terminal, own process. */
export function domsched(
  args: readonly string[],
  options: { nodeArgs?: readonly string[]; cwd?: string } = {},
): CliResult {
  return runNode([...(options.nodeArgs ?? []), `${root}domsched.ts`, ...args], options.cwd);
}

/** Runs the compiled program. */
export function compiledDomsched(
  args: readonly string[],
  options: { nodeArgs?: readonly string[]; cwd?: string } = {},
): CliResult {
  return runNode([...(options.nodeArgs ?? []), `${root}dist/domsched.js`, ...args], options.cwd);
}

export function runNode(args: readonly string[], cwd?: string): CliResult {
  const { status, stdout, stderr, error } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    cwd,
    env,
    maxBuffer: 1 << 28,
    timeout: 300_000,
  });
  if (error) throw error;
  return { code: status, stdout, stderr };
}

/** Starts the program and sends it a signal as soon as it has opened a file. */
export async function interruptDomsched(
  args: readonly string[],
  signal: NodeJS.Signals,
  opened: string,
): Promise<CliResult & { signal: NodeJS.Signals | null }> {
  const child = spawn(process.execPath, [`${root}domsched.ts`, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
  });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  const timer = setInterval(() => {
    if (!hasOpen(child.pid!, opened)) return;
    clearInterval(timer);
    child.kill(signal);
  }, 20);
  const limit = setTimeout(() => child.kill('SIGKILL'), 180_000);
  const { promise, resolve } = Promise.withResolvers<CliResult & { signal: NodeJS.Signals | null }>();
  child.on('close', (code, endedBy) => resolve({ code, signal: endedBy, ...output }));
  try {
    return await promise;
  } finally {
    clearInterval(timer);
    clearTimeout(limit);
  }
}

function hasOpen(pid: number, path: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some(
      (fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === realpathSync(path),
    );
  } catch {
    // A descriptor was closed while we looked, or the program is gone, which its `close` event tells.
    return false;
  }
}
