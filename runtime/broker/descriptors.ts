import koffi from 'koffi';
import { addressOf } from '../hypervisor/process-memory.ts';

/** From Linux bits/socket.h and asm-generic/socket.h, which x86-64 uses too. */
const AF_UNIX = 1;
const SOCK_SEQPACKET_CLOEXEC = 5 | 0x8_0000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

/**
 * Places in one buffer: `struct msghdr`, `struct iovec`, what is sent, and `struct cmsghdr` with its data. Words and their
 * widths are this host's (bits/types/struct_iovec.h, bits/socket.h of x86-64); nothing here comes from a guest.
 */
const [IOVEC, PAYLOAD, CONTROL, BUFFER] = [64, 96, 128, 1024];
/** Bytes of `struct cmsghdr`, of what is sent, and of a descriptor. */
const [HEADER_BYTES, PAYLOAD_BYTES, FD_BYTES] = [16, 4, 4];

const libc = koffi.load('libc.so.6');
const socketpair = libc.func('int socketpair(int domain, int type, int protocol, void *pair)');
const sendmsg = libc.func('int64_t sendmsg(int fd, void *message, int flags)');
const recvmsg = libc.func('int64_t recvmsg(int fd, void *message, int flags)');

/** Two ends of a connection for {@link sendDescriptors}. @throws Error if the kernel has none */
export function descriptorChannel(): [number, number] {
  const pair = new Int32Array(2);
  if (socketpair(AF_UNIX, SOCK_SEQPACKET_CLOEXEC, 0, pair) !== 0) {
    throw new Error(`no socket: error ${koffi.errno()}`);
  }
  return [pair[0]!, pair[1]!];
}

/**
 * Hands copies of open files to the process at the other end (unix(7), SCM_RIGHTS), without waiting: who takes none must
 * not keep us from ending pauses.
 * @throws Error if they cannot be handed over now
 */
export function sendDescriptors(socket: number, number: number, descriptors: readonly number[]): void {
  const { bytes, view } = message(descriptors.length);
  view.setUint32(PAYLOAD, number, true);
  view.setBigUint64(CONTROL, BigInt(HEADER_BYTES + FD_BYTES * descriptors.length), true);
  view.setInt32(CONTROL + 8, SOL_SOCKET, true);
  view.setInt32(CONTROL + 12, SCM_RIGHTS, true);
  for (const [i, fd] of descriptors.entries()) view.setInt32(CONTROL + HEADER_BYTES + FD_BYTES * i, fd, true);
  if (Number(sendmsg(socket, bytes, MSG_DONTWAIT | MSG_NOSIGNAL)) === PAYLOAD_BYTES) return;
  throw new Error(`files cannot be handed over: error ${koffi.errno()}`);
}

/** Takes what was sent, without waiting. @throws Error if there is nothing, or not so many */
export function receiveDescriptors(
  socket: number,
  count: number,
): { number: number; descriptors: readonly number[] } {
  const { bytes, view } = message(count);
  if (Number(recvmsg(socket, bytes, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) !== PAYLOAD_BYTES) {
    throw new Error(`no files were handed over: error ${koffi.errno()}`);
  }
  const length = Number(view.getBigUint64(CONTROL, true));
  if (length !== HEADER_BYTES + FD_BYTES * count) throw new Error('other files were handed over');
  const descriptors = Array.from({ length: count }, (_, i) =>
    view.getInt32(CONTROL + HEADER_BYTES + FD_BYTES * i, true),
  );
  return { number: view.getUint32(PAYLOAD, true), descriptors };
}

/** An empty message with room for so many descriptors. */
function message(count: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(new ArrayBuffer(BUFFER));
  const view = new DataView(bytes.buffer);
  const base = addressOf(bytes);
  const control = HEADER_BYTES + 8 * Math.ceil((FD_BYTES * count) / 8);
  // msg_iov, msg_iovlen, msg_control, msg_controllen.
  view.setBigUint64(16, BigInt(base + IOVEC), true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(32, BigInt(base + CONTROL), true);
  view.setBigUint64(40, BigInt(control), true);
  view.setBigUint64(IOVEC, BigInt(base + PAYLOAD), true);
  view.setBigUint64(IOVEC + 8, BigInt(PAYLOAD_BYTES), true);
  return { bytes, view };
}
