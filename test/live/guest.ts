import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, chown, cp, mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CachedKernel, requireKernel } from '../../kernels/cache.ts';
import { diskModules, networkModules } from '../../kernels/modules.ts';
import { projectDirectory } from '../../kernels/paths.ts';
import { QmpClient } from '../../runtime/hypervisor/qemu/qmp-client.ts';
import { type Accelerator, workingAccelerator } from './accelerator.ts';
import { GuestAgent } from './agent.ts';
import { GuestConsole } from './console.ts';
import { type GuestProgram, makeInitramfs } from './initramfs.ts';
import { parseProgress } from './progress.ts';

const BOOT_LIMIT_MS = 240_000;
/** Multi-threaded TCG loses a boot now and then. */
const BOOT_ATTEMPTS = 3;
const QUIT_LIMIT_MS = 10_000;
const DISK_BYTES = 16 * 1024 * 1024;

/**
 * In s: after how long RCU speaks of a stall, and half of how long the watchdog waits for a CPU. A host that is busy with
 * other tests lets a guest stand for longer than the 20 s that kernels allow by themselves.
 */
const PATIENT = 'rcupdate.rcu_cpu_stall_timeout=120 watchdog_thresh=60';

/** How a machine is built, whatever boots on it. */
export interface MachineOptions {
  name?: string;
  /** Or QEMU's whole `-smp`. */
  cpus?: number | string;
  /** MiB. */
  memory?: number;
  /**
   * Where RAM is: a file that we can map, memory of the QEMU process only, a sealed memfd, or two memory nodes of equal
   * size, one in a memfd (of huge pages) and one in the process only, with a CPU each; or wherever `extra` says.
   */
  ram?: 'file' | 'anonymous' | 'memfd' | 'nodes' | 'huge-nodes' | 'elsewhere';
  /** QEMU CPU model; `max` has 5-level paging, `qemu64` 4 levels and page-table isolation. */
  cpu?: string;
  /** QEMU machine type with its options. */
  machine?: string;
  /** More QEMU arguments. */
  extra?: readonly string[];
  /** More QEMU arguments that name files in the machine's own folder. */
  devices?: (directory: string) => readonly string[];
  accelerator?: Accelerator;
  /** No socket by which QEMU takes an order: whoever wants something of the machine has its process. */
  monitors?: false;
  /** The user that QEMU runs as, and the words of a command in front of it that makes it so. */
  as?: { readonly uid: number; readonly words: (directory: string) => readonly string[] };
}

export interface KernelOptions extends MachineOptions {
  kernel: string;
  initrd?: string;
  append?: string;
  /** Line on the console that says the guest is up. */
  ready?: RegExp;
  /** How long a boot may take, and how many there may be. */
  limitMs?: number;
  attempts?: number;
}

export interface DebianOptions extends MachineOptions {
  /** Id of `kernels/debian/*.json`. */
  kernel?: string;
  /** More kernel parameters. */
  append?: string;
  programs?: readonly GuestProgram[];
  /** Shell lines that init runs before the programs. */
  setup?: string;
  /** Each program is a session of its own. */
  sessions?: boolean;
  /** Files for the guest beside its programs: where each comes from, by its place. */
  files?: Readonly<Record<string, string>>;
  /** A folder with all of whose files the guest begins, beside its own. */
  root?: string;
  /** A virtio disk with a file system on /mnt. */
  disk?: boolean;
  /** A virtio network card, `eth0`; `extra` has the network behind it, with the id `network`. */
  network?: boolean;
  /** Nice level of the shell that answers {@link LiveGuest.run}. */
  shellNice?: number;
}

/** A running guest of a test. Dispose of it on every path: `await using guest = await bootDebian(…)`. */
export class LiveGuest implements AsyncDisposable {
  readonly name: string;
  readonly directory: string;
  readonly sockets: { readonly qmp: string; readonly qtest: string };
  readonly console: GuestConsole;
  readonly accelerator: Accelerator;
  readonly process: ChildProcess;
  /** Set for guests that serve a shell. */
  agent: GuestAgent | undefined;
  #monitor: QmpClient | undefined;
  #kept = false;

  constructor(parts: {
    name: string;
    directory: string;
    console: GuestConsole;
    accelerator: Accelerator;
    process: ChildProcess;
  }) {
    this.name = parts.name;
    this.directory = parts.directory;
    this.console = parts.console;
    this.accelerator = parts.accelerator;
    this.process = parts.process;
    this.sockets = {
      qmp: path.join(parts.directory, 'qmp.sock'),
      qtest: path.join(parts.directory, 'qtest.sock'),
    };
  }

  /** The `--connect` value. */
  get connection(): string {
    return `qemu:unix:${this.sockets.qmp},qtest=unix:${this.sockets.qtest}`;
  }

  /** A QMP connection beside the one under test: QEMU's own word on what we read. */
  async monitor(): Promise<QmpClient> {
    this.#monitor ??= await QmpClient.connect(path.join(this.directory, 'monitor.sock'));
    return this.#monitor;
  }

  /** Runs a line of shell in the guest. */
  run(command: string, timeoutMs?: number): Promise<string> {
    if (this.agent === undefined) throw new Error(`${this.name} serves no shell`);
    return this.agent.run(command, timeoutMs);
  }

  /** What the programs have counted so far. */
  async progress(...names: string[]): Promise<Record<string, number>> {
    return parseProgress(await this.run(`workload progress ${names.join(' ')}`));
  }

  /** @throws Error with the lines on the console that mean trouble */
  checkConsole(): void {
    const problems = this.console.problems();
    if (problems.length > 0) {
      this.#kept = true;
      throw new Error(
        `${this.name}: the guest's console shows trouble:\n${problems.slice(0, 20).join('\n')}`,
      );
    }
  }

  /** Kills QEMU without a word, as the OOM killer would. */
  async kill(): Promise<void> {
    const gone = this.#exit();
    this.process.kill('SIGKILL');
    await gone;
  }

  /** Ends the machine and removes its files; after trouble its console is kept below `.cache/live/artefacts`. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.console.problems().length > 0) this.#kept = true;
    this.agent?.close();
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const gone = this.#exit();
      try {
        (await this.monitor()).sendOnly('quit');
      } catch {
        this.process.kill('SIGKILL');
      }
      const inTime = await Promise.race([gone.then(() => true), sleep(QUIT_LIMIT_MS, false, { ref: false })]);
      if (!inTime) {
        this.process.kill('SIGKILL');
        await gone;
      }
    }
    this.#monitor?.close();
    running.delete(this.process);
    if (this.#kept) await this.keepArtefacts();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Copies console and QEMU's log to where they outlive the test. @returns that folder */
  async keepArtefacts(): Promise<string> {
    const target = path.join(projectDirectory, '.cache', 'live', 'artefacts', path.basename(this.directory));
    await mkdir(target, { recursive: true });
    for (const file of ['console.log', 'qemu.log']) {
      const from = path.join(this.directory, file);
      if (existsSync(from)) await cp(from, path.join(target, file));
    }
    console.log(`# ${this.name}: console kept in ${target}`);
    return target;
  }

  async #exit(): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) await once(this.process, 'exit');
  }
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts a machine without waiting for anything but its sockets. */
export async function startMachine(options: KernelOptions): Promise<LiveGuest> {
  const name = options.name ?? 'guest';
  const directory = await mkdtemp(path.join(tmpdir(), `domsched-${name}-`));
  const accelerator = options.accelerator ?? (await workingAccelerator());
  const memory = options.memory ?? 384;
  const socket = (file: string) => `unix:${path.join(directory, file)},server=on,wait=off`;
  if (options.as !== undefined) await chown(directory, options.as.uid, -1);
  const [program = '', ...before] = [...(options.as?.words(directory) ?? []), 'qemu-system-x86_64'];
  const child = spawn(
    program,
    [
      ...before,
      ...[
        '-name',
        name,
        '-accel',
        accelerator,
        '-cpu',
        options.cpu ?? 'max',
        '-smp',
        String(options.cpus ?? 2),
      ],
      ...[
        '-m',
        String(memory),
        ...ramArguments(options.ram ?? 'file', options.machine ?? 'q35', memory, directory),
      ],
      ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
      ...['-kernel', options.kernel, ...(options.initrd ? ['-initrd', options.initrd] : [])],
      ...['-append', options.append ?? ''],
      ...['-serial', 'stdio', '-serial', socket('agent.sock')],
      ...(options.monitors === false
        ? []
        : [
            ...['-qmp', socket('qmp.sock'), '-qmp', socket('monitor.sock')],
            ...['-qtest', socket('qtest.sock'), '-qtest-log', 'none'],
          ]),
      ...(options.extra ?? []),
      ...(options.devices?.(directory) ?? []),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  running.add(child);
  child.on('exit', () => running.delete(child));
  let complaints = '';
  child.stderr!.on('data', (data) => {
    complaints = (complaints + String(data)).slice(-4000);
  });
  const guest = new LiveGuest({
    name,
    directory,
    accelerator,
    process: child,
    console: new GuestConsole(child.stdout!, path.join(directory, 'console.log')),
  });
  const started = Date.now();
  const last = options.monitors === false ? 'agent.sock' : 'qtest.sock';
  while (!existsSync(path.join(directory, last))) {
    if (child.exitCode !== null || Date.now() - started > 120_000) {
      await guest[Symbol.asyncDispose]();
      throw new Error(`QEMU did not start ${name}: ${complaints}`);
    }
    await sleep(20);
  }
  return guest;
}

/**
 * Boots a kernel and waits until it says that it is up; tries again when a boot dies.
 * @throws Error with the end of the console
 */
export async function bootKernel(options: KernelOptions): Promise<LiveGuest> {
  for (let attempt = 1; ; attempt++) {
    const guest = await startMachine(options);
    try {
      const begin = Date.now();
      await guest.console.waitFor(options.ready ?? /GUEST READY/, options.limitMs ?? BOOT_LIMIT_MS);
      guest.console.booted();
      console.log(`# ${guest.name}: up after ${Date.now() - begin} ms under ${guest.accelerator}`);
      return guest;
    } catch (error) {
      await guest.keepArtefacts();
      await guest[Symbol.asyncDispose]();
      if (attempt === (options.attempts ?? BOOT_ATTEMPTS)) throw error;
      console.log(
        `# ${guest.name}: boot ${attempt} failed, trying again: ${(error as Error).message.split('\n')[0]}`,
      );
    }
  }
}

/** Boots one of Debian's kernels with our initramfs: programs running, a shell to ask. */
export async function bootDebian(options: DebianOptions = {}): Promise<LiveGuest & { kernel: CachedKernel }> {
  const kernel = requireKernel(options.kernel ?? 'debian-6.1-cloud');
  const modules = [
    ...(options.disk ? await diskModules(kernel) : []),
    ...(options.network ? await networkModules(kernel) : []),
  ];
  const named = { name: kernel.id.replaceAll('.', '-'), ...options };
  return Object.assign(await bootImage(kernel.vmlinuz, named, modules), { kernel });
}

/** Boots any kernel so. @param modules that it loads first */
export async function bootImage(
  vmlinuz: string,
  options: Omit<DebianOptions, 'kernel'>,
  modules: readonly string[] = [],
): Promise<LiveGuest> {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-boot-'));
  try {
    const initrd = path.join(directory, 'initramfs.cpio');
    await makeInitramfs(initrd, { ...options, modules });
    // Another user's QEMU reads it too.
    if (options.as !== undefined) await chmod(directory, 0o755);
    const extra = options.disk
      ? [...(options.extra ?? []), ...(await diskArguments(directory))]
      : options.extra;
    const guest = await bootKernel({
      ...options,
      ...(extra && { extra }),
      kernel: vmlinuz,
      initrd,
      append: `console=ttyS0 quiet panic=-1 oops=panic ${PATIENT} ${options.append ?? ''}`,
    });
    guest.agent = await GuestAgent.connect(path.join(guest.directory, 'agent.sock'));
    return guest;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function diskArguments(directory: string): Promise<string[]> {
  const file = path.join(directory, 'disk');
  await writeFile(file, '');
  await truncate(file, DISK_BYTES);
  return ['-drive', `if=none,id=disk,format=raw,file=${file}`, '-device', 'virtio-blk-pci,drive=disk'];
}

function ramArguments(
  ram: NonNullable<MachineOptions['ram']>,
  machine: string,
  memory: number,
  directory: string,
): string[] {
  if (ram === 'anonymous' || ram === 'elsewhere') return ['-machine', machine];
  if (ram === 'nodes' || ram === 'huge-nodes') {
    const size = `size=${memory / 2}M${ram === 'nodes' ? '' : ',hugetlb=on,hugetlbsize=2M'}`;
    return [
      ...['-machine', machine],
      ...['-object', `memory-backend-memfd,id=node0,${size},share=on`, '-numa', 'node,memdev=node0,cpus=0'],
      ...['-object', `memory-backend-ram,id=node1,size=${memory / 2}M`, '-numa', 'node,memdev=node1,cpus=1'],
    ];
  }
  const backend =
    ram === 'file'
      ? `memory-backend-file,id=ram,size=${memory}M,share=on,mem-path=${path.join(directory, 'memory')}`
      : `memory-backend-memfd,id=ram,size=${memory}M,share=on`;
  return ['-object', backend, '-machine', `${machine},memory-backend=ram`];
}
