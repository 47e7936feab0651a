import { createWriteStream, type WriteStream } from 'node:fs';
import type { Readable } from 'node:stream';

/** Lines that a healthy kernel or program doesn't print. */
export const PROBLEMS =
  /\bBUG\b[: ]|\bWARNING:|\bOops\b|Kernel panic|general protection fault|soft lockup|hard LOCKUP|self-detected stall|detected stalls|rcu:.*stall|blocked for more than|psi: inconsistent|unable to handle|Bad page|bad: scheduling|scheduling while atomic|list_(add|del) corruption|WORKLOAD ERROR|segfault at/;

/** A guest's console: keeps every line, says when one appears, and finds those that mean trouble. */
export class GuestConsole {
  readonly lines: string[] = [];
  readonly #log: WriteStream;
  readonly #waiting = new Set<() => void>();
  #partial = '';
  /** Lines of the boot. */
  #boot = 0;
  #ended = false;

  constructor(stream: Readable, logFile: string) {
    this.#log = createWriteStream(logFile);
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => {
      this.#log.write(text);
      const parts = (this.#partial + text).split('\n');
      this.#partial = parts.pop()!.slice(-4096);
      for (const part of parts) this.lines.push(part.replace(/\r$/, ''));
      for (const wake of [...this.#waiting]) wake();
    });
    stream.on('close', () => {
      this.#ended = true;
      this.#log.end();
      for (const wake of [...this.#waiting]) wake();
    });
  }

  /** Lines since the boot that mean trouble. */
  problems(): string[] {
    return this.lines.slice(this.#boot).filter((line) => PROBLEMS.test(line));
  }

  /** The guest is up: a stall before, on a host that had no time for it, is none of what is tested. */
  booted(): void {
    this.#boot = this.lines.length;
  }

  tail(count = 20): string {
    return [...this.lines.slice(-count), this.#partial].join('\n');
  }

  /**
   * Resolves with the first line from index `from` on that matches.
   * @throws Error when it doesn't come within the time, or the guest ends
   */
  waitFor(pattern: RegExp, timeoutMs: number, from = 0): Promise<string> {
    return new Promise((resolve, reject) => {
      let next = from;
      const settle = (act: () => void): void => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        act();
      };
      const look = (): void => {
        for (; next < this.lines.length; next++) {
          const line = this.lines[next]!;
          if (!pattern.test(line)) continue;
          settle(() => resolve(line));
          return;
        }
        if (this.#ended) settle(() => reject(new Error(`guest ended without ${pattern}:\n${this.tail()}`)));
      };
      const timer = setTimeout(
        () => settle(() => reject(new Error(`no ${pattern} within ${timeoutMs} ms:\n${this.tail()}`))),
        timeoutMs,
      );
      this.#waiting.add(look);
      look();
    });
  }
}
