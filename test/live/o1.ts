/**
 * Boots the O(1) guest of kernels/o1 in QEMU, for tests. Guest RAM is a file, so that a test can read and write it
 * while the guest is paused; QMP is on a unix socket.
 */
import { existsSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { KernelsError } from '../../kernels/error.ts';
import type { Accelerator } from './accelerator.ts';

const guestDirectory = path.resolve(import.meta.dirname, '../../kernels/o1');

export type O1Variant = 'base' | 'preempt' | 'schedstats' | 'up' | 'base-dwarf5' | 'evil';

export interface BootOptions {
  variant?: O1Variant;
  /** 1 to 8 */
  cpus?: number;
  memoryMiB?: number;
  /** The guest's command line: `run=pi1:5@0,sleeper strict report=250 stop=SECONDS`; kernels/o1/README.md. */
  commandLine?: string;
  accelerator?: Accelerator;
  /** QEMU's `-name`: what domsched calls the domain. */
  name?: string;
  extraArguments?: string[];
  /** Makes another command of QEMU's: as another user, in another place. `folder` is the guest's own. */
  launch?: (qemu: readonly string[], folder: string) => Promise<readonly string[]>;
}

export interface O1Guest {
  readonly pid: number;
  /** Console lines so far. */
  readonly lines: readonly string[];
  /** All of guest RAM: the byte at offset n is guest physical address n. */
  readonly memoryFile: string;
  readonly qmpSocket: string;
  readonly kernelFile: string;
  readonly accelerator: Accelerator;
  /** Resolves with the first console line (old or new) that matches. @throws Error at the time limit, or QEMU's end */
  waitFor(pattern: RegExp, limitMs?: number): Promise<string>;
  /** Runs a QMP command, gives its `return`. @throws Error with QEMU's description */
  qmp(command: string, args?: Record<string, unknown>): Promise<unknown>;
  /** Waits until QEMU has ended by itself (command line `stop=`). */
  ended(limitMs?: number): Promise<void>;
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

let building: Promise<unknown> | undefined;

/** Builds all variants; a lock lets test files that run at the same time wait for each other. */
export async function buildO1(): Promise<void> {
  building ??= execa('flock', [guestDirectory, 'make', '-s', '-C', guestDirectory], { timeout: 300_000 });
  await building;
}

export function kernelFile(variant: O1Variant): string {
  const file = path.join(guestDirectory, 'build', variant, 'vmlinux-2.6.16.33');
  if (existsSync(file)) return file;
  throw new KernelsError('kernel-absent', `${file} is not there: run \`make kernels\``, { file });
}

/** Addresses by name, as nm gave them at build time. */
export async function readSystemMap(variant: O1Variant): Promise<Map<string, bigint>> {
  const file = await open(path.join(guestDirectory, 'build', variant, 'System.map'));
  await using _close = { [Symbol.asyncDispose]: () => file.close() };
  const symbols = new Map<string, bigint>();
  for (const line of (await file.readFile('utf8')).split('\n')) {
    const [address, , name] = line.split(' ');
    if (name !== undefined) symbols.set(name, BigInt(`0x${address}`));
  }
  return symbols;
}

/** A QMP session: one command at a time, events dropped. */
class Qmp {
  readonly #socket: Socket;
  readonly #waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
    const fail = () => {
      for (const { reject } of this.#waiting.splice(0)) reject(new Error('QEMU closed its QMP socket'));
    };
    socket.on('close', fail).on('error', fail);
    createInterface({ input: socket }).on('line', (line) => {
      const message = JSON.parse(line) as { return?: unknown; error?: { desc: string } };
      if (message.return === undefined && message.error === undefined) return;
      const next = this.#waiting.shift();
      if (message.error === undefined) next?.resolve(message.return);
      else next?.reject(new Error(message.error.desc));
    });
  }

  execute(command: string, args?: Record<string, unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#socket.write(`${JSON.stringify({ execute: command, ...(args && { arguments: args }) })}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}

async function connect(socketPath: string, limitMs: number): Promise<Qmp> {
  for (const end = Date.now() + limitMs; ; await sleep(20)) {
    try {
      const socket = createConnection(socketPath);
      await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
      const qmp = new Qmp(socket);
      await qmp.execute('qmp_capabilities');
      return qmp;
    } catch (error) {
      if (Date.now() > end) throw new Error(`no QMP at ${socketPath}`, { cause: error });
    }
  }
}

/** Starts a guest; returns once QMP answers. The caller must stop() it; QEMU dies with this process. */
export async function bootO1(options: BootOptions = {}): Promise<O1Guest> {
  await buildO1();
  const { variant = 'base', cpus = 2, memoryMiB = 64, commandLine = '', name = 'o1' } = options;
  const accelerator = options.accelerator ?? (await usableAccelerator());
  const folder = await mkdtemp(path.join(tmpdir(), 'o1-'));
  const memoryFile = path.join(folder, 'memory');
  const qmpSocket = path.join(folder, 'qmp.sock');
  const lines: string[] = [];
  const listeners = new Set<() => void>();
  const command = [
    'qemu-system-x86_64',
    ...['-name', name, '-display', 'none', '-nodefaults', '-no-user-config', '-no-reboot'],
    ...['-machine', 'pc,memory-backend=ram', '-m', String(memoryMiB), '-smp', String(cpus)],
    ...['-object', `memory-backend-file,id=ram,size=${memoryMiB}M,mem-path=${memoryFile},share=on`],
    ...(accelerator === 'kvm'
      ? ['-accel', 'kvm', '-cpu', 'host,-arch-capabilities']
      : ['-accel', 'tcg,thread=multi']),
    ...['-serial', 'stdio', '-monitor', 'none', '-qmp', `unix:${qmpSocket},server=on,wait=off`],
    ...['-kernel', kernelFile(variant), '-append', commandLine, ...(options.extraArguments ?? [])],
  ];
  const [file, ...args] = (await options.launch?.(command, folder)) ?? command;
  const qemu = execa(file!, args, { buffer: false, reject: false, stdin: 'ignore', cleanup: true });
  let ended = false;
  let complaint = '';
  qemu.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString();
  });
  createInterface({ input: qemu.stdout }).on('line', (line) => {
    lines.push(line.replace(/\r$/, ''));
    for (const notify of listeners) notify();
  });
  const over = qemu.then(() => {
    ended = true;
    for (const notify of listeners) notify();
  });

  let qmp: Qmp | undefined;
  const stop = async (): Promise<void> => {
    qmp?.close();
    qemu.kill('SIGKILL');
    await over;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    qmp = await connect(qmpSocket, 120_000);
  } catch (error) {
    await stop();
    throw new Error(`QEMU did not start: ${complaint}`, { cause: error });
  }
  const session = qmp;

  const settle = async <T>(limitMs: number, what: string, look: () => T | undefined): Promise<T> => {
    const timeout = Promise.withResolvers<'late'>();
    const timer = setTimeout(() => timeout.resolve('late'), limitMs);
    try {
      for (;;) {
        const change = Promise.withResolvers<undefined>();
        const notify = () => change.resolve(undefined);
        listeners.add(notify);
        try {
          const found = look();
          if (found !== undefined) return found;
          const last = () => `${complaint}; last lines:\n${lines.slice(-15).join('\n')}`;
          if (ended) throw new Error(`QEMU ended before ${what} ${last()}`);
          if ((await Promise.race([change.promise, timeout.promise])) === 'late')
            throw new Error(`no ${what} within ${limitMs} ms ${last()}`);
        } finally {
          listeners.delete(notify);
        }
      }
    } finally {
      clearTimeout(timer);
    }
  };

  return {
    pid: qemu.pid!,
    lines,
    memoryFile,
    qmpSocket,
    kernelFile: kernelFile(variant),
    accelerator,
    waitFor: (pattern, limitMs = 60_000) =>
      settle(limitMs, `line ${pattern}`, () => lines.find((line) => pattern.test(line))),
    qmp: (command, args) => session.execute(command, args),
    ended: async (limitMs = 120_000) => {
      await settle(limitMs, 'end of run', () => (ended ? true : undefined));
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

let probed: Promise<Accelerator> | undefined;

/**
 * KVM where a guest really works with it, else TCG. Works means: programs make progress in user mode, quickly. (Where
 * KVM is itself run by a hypervisor that leaves it without second-level paging, a guest boots but crawls.)
 */
export function usableAccelerator(): Promise<Accelerator> {
  probed ??= (async () => {
    try {
      const device = await open('/dev/kvm', 'r+');
      await device.close();
      await using guest = await bootO1({ accelerator: 'kvm', commandLine: 'run=pi1 report=50' });
      await guest.waitFor(/^pi1 .*progress=\d{4}/, 4000);
      return 'kvm';
    } catch {
      return 'tcg';
    }
  })();
  return probed;
}

/** The `key=value` pairs of a console line whose values are numbers. */
export function numbers(line: string): Record<string, number> {
  return Object.fromEntries(
    [...line.matchAll(/(\w+)=(-?\d+)/g)].map(([, key, value]) => [key, Number(value)]),
  );
}
