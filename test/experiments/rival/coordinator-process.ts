import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import type { CoordinatorWord } from './coordinator.ts';
import type { RivalCounts } from './strict-priority.ts';

/** The coordinator as a process of its own. When it ends, its agents let go and end. */
export class CoordinatorProcess implements AsyncDisposable {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #ready: Promise<unknown>;

  private constructor(child: ChildProcess, port: number, ready: Promise<unknown>) {
    this.#child = child;
    this.port = port;
    this.#ready = ready;
  }

  /** @param ignore names of processes whose being runnable says nothing */
  static async start(
    guests: number,
    subject: { readonly guest: string; readonly comm: string },
    ignore: readonly string[],
  ): Promise<CoordinatorProcess> {
    const child = fork(path.join(import.meta.dirname, 'coordinator.ts'), [
      String(guests),
      subject.guest,
      subject.comm,
      ...ignore,
    ]);
    const { port } = await heard(child, 'port');
    return new CoordinatorProcess(child, port, heard(child, 'ready'));
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** When an agent of every guest has come. */
  async ready(): Promise<void> {
    await this.#ready;
  }

  async end(): Promise<RivalCounts> {
    const counts = heard(this.#child, 'counts');
    this.#child.send('end');
    return (await counts).counts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill();
    await gone;
  }
}

/** The next word of a kind. @throws Error when the coordinator ends before, or says nothing for long */
async function heard<K extends 'port' | 'ready' | 'counts'>(
  child: ChildProcess,
  kind: K,
): Promise<Extract<CoordinatorWord, Record<K, unknown>>> {
  const late = new AbortController();
  child.once('exit', () => late.abort());
  const signal = AbortSignal.any([late.signal, AbortSignal.timeout(120_000)]);
  for (;;) {
    const [word] = (await once(child, 'message', { signal })) as [CoordinatorWord];
    if (kind in word) return word as Extract<CoordinatorWord, Record<K, unknown>>;
  }
}
