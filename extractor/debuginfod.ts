import { ExtractError } from './error.ts';

const BUILD_ID = /^(?:[0-9a-f]{2}){4,64}$/;

/**
 * Fetches a kernel's debug file from the servers in DEBUGINFOD_URLS with elfutils' own client, which caches it.
 *
 * @param buildId of the kernel, in hexadecimal digits
 * @returns its path
 * @throws ExtractError `file-not-found` if no server is named, the client is not installed, or no server has the file
 */
export async function debugFileOf(buildId: string, signal: AbortSignal): Promise<string> {
  const id = buildId.toLowerCase();
  if (!BUILD_ID.test(id)) {
    throw notFound(id, `${JSON.stringify(buildId)} is no build-id: give its hexadecimal digits`);
  }
  const { execa } = await import('execa');
  const { env } = await import('node:process');
  if ((env.DEBUGINFOD_URLS ?? '').trim() === '') {
    throw notFound(id, 'DEBUGINFOD_URLS names no server to ask for it; set it, or give the file itself');
  }
  const found = await execa('debuginfod-find', ['debuginfo', id], {
    stdin: 'ignore',
    env: { LC_ALL: 'C' },
    maxBuffer: 64 << 10,
    reject: false,
    cancelSignal: signal,
  });
  signal.throwIfAborted();
  if (found.code === 'ENOENT') {
    throw notFound(id, 'debuginfod-find is not installed: apt-get install debuginfod');
  }
  const path = found.stdout.trim();
  if (found.exitCode === 0 && path.startsWith('/')) return path;
  const said = found.stderr.trim().split('\n').at(-1) || `exit code ${found.exitCode}`;
  throw notFound(id, `no server of DEBUGINFOD_URLS gave its debug file (${said}); give the file itself`);
}

function notFound(buildId: string, why: string): ExtractError {
  return new ExtractError('file-not-found', `kernel ${buildId}: ${why}`, { buildId });
}
