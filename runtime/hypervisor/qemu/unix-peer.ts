import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import koffi from 'koffi';

/** From Linux asm-generic/socket.h, which x86-64 uses too. */
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** struct ucred has process, user and group. */
const UCRED_BYTES = 12;
/** struct sockaddr_un has the family, then the name. */
const ADDRESS_BYTES = 110;
const FAMILY_BYTES = 2;

const libc = koffi.load('libc.so.6');
const getsockopt = libc.func('int getsockopt(int fd, int level, int option, void *value, void *length)');
const getpeername = libc.func('int getpeername(int fd, void *address, void *length)');

/** The kernel's view of the other end of a unix socket. */
export interface UnixPeer {
  /**
   * The process that called listen(): the server, or the process that handed the socket to it. 0 if it is in no PID
   * namespace that we can see.
   */
  readonly pid: number;
  /** The name it was bound to. It is relative if the bind was, and still the old one if the socket was moved. */
  readonly bound: string;
}

/** The process that serves a connected socket; undefined if it cannot be told. */
export function peerOf(socket: Socket): UnixPeer | undefined {
  // Node.js has no other way to get a socket's file descriptor.
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  if (fd === undefined || fd < 0) return undefined;
  const credentials = Buffer.alloc(UCRED_BYTES);
  const length = Uint32Array.of(UCRED_BYTES);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length) !== 0) return undefined;
  const address = Buffer.alloc(ADDRESS_BYTES);
  length[0] = ADDRESS_BYTES;
  if (getpeername(fd, address, length) !== 0) return undefined;
  const name = address.subarray(FAMILY_BYTES, Math.min(length[0], ADDRESS_BYTES));
  const end = name.indexOf(0);
  return { pid: credentials.readInt32LE(0), bound: name.toString('utf8', 0, end < 0 ? undefined : end) };
}

/** A socket of `/proc/net/unix`. */
export interface UnixSocket {
  readonly inode: number;
  readonly listens: boolean;
  /** It is a connection that nobody has accepted yet, in the queue of the listening socket. */
  readonly waits: boolean;
  readonly bound: string;
}

/** From include/uapi/linux/net.h: flag of a listening socket, and state of a connection that is not accepted. */
const ACCEPTS = 0x10000;
const SS_CONNECTING = 2;

/** All named unix sockets of our network namespace. */
export function unixSockets(): UnixSocket[] {
  const sockets: UnixSocket[] = [];
  // Num RefCount Protocol Flags Type St Inode Path
  for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
    const match = /^\S+ \S+ \S+ ([0-9A-F]+) \S+ ([0-9A-F]+)\s+(\d+) (.+)$/i.exec(line);
    if (match === null) continue;
    sockets.push({
      inode: Number(match[3]),
      listens: (Number.parseInt(match[1]!, 16) & ACCEPTS) !== 0,
      waits: Number.parseInt(match[2]!, 16) === SS_CONNECTING,
      bound: match[4]!,
    });
  }
  return sockets;
}
