import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { type UnixPeer, unixSockets } from './unix-peer.ts';

/**
 * The process of QEMU behind a connected QMP socket; undefined if it cannot be told (another user's process, another
 * PID namespace). The kernel shows which processes hold the listening socket, or else which one called listen(). QEMU's
 * word only decides between these: the process must have the threads that it names as its vCPUs.
 * @param threads threads of the vCPUs, as numbered in QEMU's own PID namespace
 */
export function servingProcess(
  socketPath: string,
  peer: UnixPeer | undefined,
  threads: readonly number[],
): number | undefined {
  const likely = threads.flatMap((thread) => processOfThread(thread) ?? []);
  const runs = (pid: number) => threadsByOwnNumber(pid, threads).length === threads.length;
  const found = listeningProcess(socketPath, peer, likely, runs);
  return found ?? (peer !== undefined && peer.pid > 0 && runs(peer.pid) ? peer.pid : undefined);
}

/**
 * The process that holds the listening socket behind a connected one; undefined if it cannot be told.
 * @param likely processes to look at first
 */
export function listeningProcess(
  socketPath: string,
  peer: UnixPeer | undefined,
  likely: readonly number[] = [],
  isIt: (pid: number) => boolean = () => true,
): number | undefined {
  const inodes = listeningInodes(socketPath, peer?.bound);
  if (inodes.size === 0) return undefined;
  const others = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  const first = peer !== undefined && peer.pid > 0 ? [peer.pid, ...likely] : likely;
  return [...first, ...others].find((pid) => holdsSocket(pid, inodes) && isIt(pid));
}

/** State of a process from `/proc/PID/stat`, such as `T` if it was stopped. Undefined if we cannot see it. */
export function processState(pid: number): string | undefined {
  try {
    // The name may contain anything, even a bracket.
    return /.*\) (\S)/s.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1];
  } catch {
    return undefined;
  }
}

function processOfThread(tid: number): number | undefined {
  try {
    return Number(/^Tgid:\s+(\d+)$/m.exec(readFileSync(`/proc/${tid}/status`, 'utf8'))?.[1]);
  } catch {
    return undefined;
  }
}

/**
 * Threads of a process in our numbers, from those in its own PID namespace.
 * @returns an empty list unless it has them all
 */
export function threadsByOwnNumber(pid: number, threads: readonly number[]): number[] {
  const own = new Map<number, number>();
  for (const tid of threadNames(pid)) {
    const status = threadStatus(pid, tid);
    if (status !== undefined) own.set(Number(/^NSpid:.*?(\d+)$/m.exec(status)?.[1] ?? tid), Number(tid));
  }
  const found = threads.flatMap((thread) => own.get(thread) ?? []);
  return found.length === threads.length ? found : [];
}

function threadNames(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** Undefined for a thread that has ended: those that do a QEMU's reading and writing come and go. */
function threadStatus(pid: number, tid: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8');
  } catch {
    return undefined;
  }
}

/** Inodes of listening sockets with this path, or with the name that the connected socket says it was bound to. */
function listeningInodes(socketPath: string, bound: string | undefined): Set<string> {
  const wanted = canonical(socketPath);
  const isIt = (name: string) =>
    name === bound ||
    name === socketPath ||
    (name.startsWith('/') && path.basename(name) === path.basename(wanted) && canonical(name) === wanted);
  const found = unixSockets().filter((socket) => socket.listens && isIt(socket.bound));
  return new Set(found.map(({ inode }) => `socket:[${inode}]`));
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
