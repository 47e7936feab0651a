import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { constants, setPriority, tmpdir } from 'node:os';
import path from 'node:path';
import { requireKernel } from '../../kernels/cache.ts';
import { DaemonProcess } from './daemon-process.ts';
import { bootDebian, type DebianOptions, type LiveGuest } from './guest.ts';
import { bootO1, kernelFile, numbers, type O1Guest } from './o1.ts';
import { until } from './until.ts';

/** Two guests of different schedulers, and the daemon over both. */
export class DaemonBench extends DaemonProcess {
  readonly web: LiveGuest;
  readonly batch: O1Guest;

  private constructor(web: LiveGuest, batch: O1Guest, directory: string) {
    super(directory, [web.connection, `qemu:unix:${path.join(directory, 'batch.sock')}`]);
    this.web = web;
    this.batch = batch;
  }

  /**
   * Boots Debian's 6.1 as `web` and the O(1) guest as `batch`.
   * @param o1 what the O(1) guest runs, see kernels/o1/README.md
   */
  static async boot(debian: DebianOptions, o1: string): Promise<DaemonBench> {
    const directory = await mkdtemp(path.join(tmpdir(), 'domsched-bench-'));
    let web: LiveGuest | undefined;
    let batch: O1Guest | undefined;
    try {
      web = await bootDebian({ name: 'web', ...debian });
      batch = await bootO1({
        name: 'batch',
        commandLine: o1,
        extraArguments: ['-qmp', `unix:${path.join(directory, 'batch.sock')},server=on,wait=off`],
      });
      const bench = new DaemonBench(web, batch, directory);
      await bench.extract(kernelFile('base'), requireKernel('debian-6.1-cloud').vmlinux);
      return bench;
    } catch (error) {
      await batch?.stop();
      await web?.[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** Leaves the CPUs to the daemon whenever it wants one: the guests get what is left. */
  yieldToDaemon(): void {
    for (const pid of [this.web.process.pid!, this.batch.pid]) {
      for (const thread of readdirSync(`/proc/${pid}/task`)) {
        setPriority(Number(thread), constants.priority.PRIORITY_LOW);
      }
    }
  }

  /** What the processes of both guests have counted so far. */
  async progress(...names: string[]): Promise<Record<string, number>> {
    const o1 = names.filter((name) => /^pi\d/.test(name));
    const debian = names.filter((name) => !/^pi\d/.test(name));
    const counted = debian.length > 0 ? await this.web.progress(...debian) : {};
    for (const name of o1) {
      const line = this.batch.lines.findLast((text) => text.startsWith(`${name} `));
      counted[name] = line === undefined ? 0 : numbers(line).progress!;
    }
    return counted;
  }

  /** Waits until each of these processes has counted on. @throws Error at the limit */
  async goesOn(...names: string[]): Promise<void> {
    const before = await this.progress(...names);
    await until(
      `${names} go on`,
      async () => {
        const now = await this.progress(...names);
        return names.every((name) => now[name]! > before[name]!);
      },
      300_000,
    );
  }

  /** @throws Error with what is wrong on the guests' consoles */
  checkConsoles(): void {
    this.web.checkConsole();
    const trouble = this.batch.lines.filter((line) => /BUG|exception|errors=[1-9]/.test(line));
    if (trouble.length > 0) throw new Error(`batch: ${trouble.slice(0, 10).join('\n')}`);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    try {
      await super[Symbol.asyncDispose]();
    } finally {
      await this.batch.stop();
      await this.web[Symbol.asyncDispose]();
      await rm(this.directory, { recursive: true, force: true });
    }
  }
}
