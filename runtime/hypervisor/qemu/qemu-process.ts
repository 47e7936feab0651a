import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import path from 'node:path';

/**
 * The process that listens on a unix socket, found through the kernel's own tables, or undefined where it cannot be
 * told (another user's process, another PID namespace).
 * @param hints processes to look at first
 */
export function listeningProcess(socketPath: string, hints: readonly number[] = []): number | undefined {
  const inodes = socketInodes(socketPath);
  if (inodes.size === 0) return undefined;
  const others = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  for (const pid of [...hints, ...others]) {
    if (holdsSocket(pid, inodes)) return pid;
  }
  return undefined;
}

/** Process of a thread. */
export function processOfThread(tid: number): number | undefined {
  try {
    return Number(/^Tgid:\s+(\d+)$/m.exec(readFileSync(`/proc/${tid}/status`, 'utf8'))?.[1]);
  } catch {
    return undefined;
  }
}

function socketInodes(socketPath: string): Set<string> {
  const wanted = canonical(socketPath);
  const inodes = new Set<string>();
  // Num RefCount Protocol Flags Type St Inode Path
  for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
    const match = /^\S+ \S+ \S+ \S+ \S+ \S+\s+(\d+) (\/.*)$/.exec(line);
    if (match === null) continue;
    const bound = match[2]!;
    if (
      bound === socketPath ||
      (path.basename(bound) === path.basename(wanted) && canonical(bound) === wanted)
    ) {
      inodes.add(`socket:[${match[1]}]`);
    }
  }
  return inodes;
}

function holdsSocket(pid: number, inodes: ReadonlySet<string>): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => inodes.has(linkOf(`/proc/${pid}/fd/${fd}`)));
  } catch {
    return false;
  }
}

function linkOf(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}

function canonical(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return path.resolve(file);
  }
}
