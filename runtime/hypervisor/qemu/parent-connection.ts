import { closeSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import koffi from 'koffi';
import { asRecord, OTHERS_ID } from './qmp-client.ts';

/** System calls of x86-64. */
const PIDFD_OPEN = 434;
const PIDFD_GETFD = 438;
const MSG_PEEK_DONTWAIT = 0x02 | 0x40;
/** What a stopped program leaves unread of QEMU: some events and answers. */
const PEEK_BYTES = 64 * 1024;
const ANSWER_MS = 2_000;
const RETRY_MS = 20;

const libc = koffi.load('libc.so.6');
const syscall = libc.func('int64_t syscall(int64_t number, int64_t first, int64_t second, int64_t third)');
const recv = libc.func('int64_t recv(int fd, _Out_ void *buffer, size_t length, int flags)');

/**
 * The QMP connection of another process, which does not run. QEMU serves one client, so the watchdog of a stopped
 * program has no connection of its own. Nothing is taken out of what QEMU sends, so that the program hears all of it
 * when it goes on: the RESUME ahead of the answers to all that it asks from then on.
 */
export class ParentConnection implements Disposable {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @returns undefined if the kernel does not allow it */
  static of(pid: number, descriptor: number): ParentConnection | undefined {
    const process = Number(syscall(PIDFD_OPEN, pid, 0, 0));
    if (process < 0) return undefined;
    const fd = Number(syscall(PIDFD_GETFD, process, descriptor, 0));
    closeSync(process);
    return fd < 0 ? undefined : new ParentConnection(fd);
  }

  send(command: string): void {
    writeSync(this.#fd, `${JSON.stringify({ execute: command, id: OTHERS_ID })}\n`);
  }

  /** Asks for the machine's state. @returns undefined if no answer comes, or its owner has read it */
  async status(): Promise<unknown> {
    const asked = this.#answers().length;
    this.send('query-status');
    for (const end = performance.now() + ANSWER_MS; performance.now() < end; await sleep(RETRY_MS)) {
      const answers = this.#answers();
      if (answers.length > asked) return asRecord(answers.at(-1))?.status;
    }
    return undefined;
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }

  /** Unread answers to commands that were sent here. */
  #answers(): unknown[] {
    const buffer = new Uint8Array(PEEK_BYTES);
    const length = Number(recv(this.#fd, buffer, PEEK_BYTES, MSG_PEEK_DONTWAIT));
    const lines = Buffer.from(buffer.subarray(0, Math.max(0, length)))
      .toString('utf8')
      .split('\n')
      .slice(0, -1);
    return lines.flatMap((line) => {
      const message = parsed(line);
      return message !== undefined && message.id === OTHERS_ID ? [message.return] : [];
    });
  }
}

function parsed(line: string): Record<string, unknown> | undefined {
  try {
    return asRecord(JSON.parse(line));
  } catch {
    // The first line may have lost its beginning to the program.
    return undefined;
  }
}
