import { mkdirSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { requireXen } from '../../kernels/xen.ts';
import { GuestAgent } from './agent.ts';
import { bootKernel, type LiveGuest } from './guest.ts';
import { CONSOLES, type Dom0File, makeDom0, SHELLS } from './xen-tree.ts';

/** It takes less than a minute on a quiet machine. */
const BOOT_LIMIT_MS = 600_000;
/**
 * Has Xen keep a timer that interrupts 100 times a second. As QEMU enters such a domain, an interrupt is forgotten now and
 * then until the next comes; of Xen's other timer, set for one time only, there is none. The README of the Xen binding
 * says more.
 */
const REGULAR_TIMER = ' clocksource=pit';

/** What a command in dom0 came to. */
export interface Outcome {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface XenOptions {
  /** The hypervisor's own scheduler. */
  scheduler?: 'credit' | 'credit2';
  /** PVH or HVM domains are to run in it, for which QEMU emulates SVM too. */
  svm?: boolean;
  /** All of the machine's memory, so that of its domains too, is a file that the host can look into while they run. */
  memoryFile?: boolean;
  files?: readonly Dom0File[];
}

/** A running Xen, reached through the folder of its sockets. One program at a time can be attached to it. */
export class XenMachine implements AsyncDisposable {
  readonly directory: string;
  /** A folder that dom0 sees as `/host`. */
  readonly share: string;
  readonly #shells: readonly GuestAgent[];

  protected constructor(directory: string, shells: readonly GuestAgent[]) {
    this.directory = directory;
    this.share = path.join(directory, 'share');
    this.#shells = shells;
  }

  static async attach(directory: string): Promise<XenMachine> {
    return new XenMachine(directory, await connectShells(directory));
  }

  /**
   * Runs lines of shell in dom0. Which of its shells takes them matters only where several are to run at one time.
   * @param timeoutMs after which dom0 itself ends it
   */
  async run(script: string, timeoutMs = 300_000, shell = 0): Promise<Outcome> {
    const name = `${process.pid}-${command++}`;
    const output = path.join(this.share, 'output', name);
    const inside = `/host/output/${name}`;
    const quoted = `'${script.replaceAll("'", `'\\''`).replaceAll('\n', '; ')}'`;
    await this.#shells[shell]!.run(
      `timeout -k 5 ${Math.ceil(timeoutMs / 1000)} sh -c ${quoted} >${inside}.out 2>${inside}.err </dev/null; echo $? >${inside}.code`,
      timeoutMs + 60_000,
    );
    const read = async (what: string) => {
      const text = await readFile(`${output}.${what}`, 'utf8');
      await rm(`${output}.${what}`);
      return text;
    };
    return { exitCode: Number(await read('code')), stdout: await read('out'), stderr: await read('err') };
  }

  /** Runs lines of shell in dom0 that have to succeed. @returns what they printed */
  async must(script: string, timeoutMs?: number, shell?: number): Promise<string> {
    const { exitCode, stdout, stderr } = await this.run(script, timeoutMs, shell);
    if (exitCode !== 0) throw new Error(`in dom0, \`${script}\` ended with ${exitCode}: ${stderr}${stdout}`);
    return stdout;
  }

  /** Brings the program as it is compiled now into dom0, without its dependencies. */
  async push(): Promise<void> {
    const file = path.join(this.share, 'program.tar');
    await execa('tar', ['-c', '-f', file, '--exclude=*.d.ts', '--exclude=.tsbuildinfo', 'dist'], {
      cwd: projectDirectory,
    });
    // Each read of the shared folder is a way out and back: few large ones.
    await this.must(
      'rm -rf /new && mkdir /new && dd if=/host/program.tar bs=256k 2>/dev/null | tar -x -C /new && rm -rf /domsched/dist && mv /new/dist /domsched',
    );
  }

  /** Lets go of its shells, so that another program can attach. */
  detach(): void {
    for (const shell of this.#shells) shell.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.detach();
  }
}

let command = 0;

/** A Xen that ends with the program that booted it. */
export class OwnXenMachine extends XenMachine {
  readonly machine: LiveGuest;

  private constructor(machine: LiveGuest, shells: readonly GuestAgent[]) {
    super(machine.directory, shells);
    this.machine = machine;
  }

  /** Boots Xen and waits until dom0 can create domains. */
  static async boot(options: XenOptions = {}): Promise<OwnXenMachine> {
    const xen = requireXen();
    const directory = await mkdtemp(path.join(tmpdir(), 'domsched-xen-'));
    try {
      const initrd = path.join(directory, 'dom0.cpio');
      await makeDom0(initrd, xen, options.files ?? []);
      const machine = await bootKernel({
        name: 'xen',
        accelerator: 'tcg',
        // Xen does not get along with all that `max` claims to have.
        cpu: 'qemu64,+npt',
        cpus: 1,
        memory: 2048,
        ram: options.memoryFile ? 'file' : 'anonymous',
        kernel: xen.hypervisor,
        initrd: `${xen.kernel} console=hvc0 quiet panic=-1 oops=panic,${initrd}`,
        append: `console=com1 com1=115200 sched=${options.scheduler ?? 'credit'} dom0_mem=768M,max:768M dom0_max_vcpus=1 noreboot${options.svm ? REGULAR_TIMER : ''}`,
        ready: /DOM0 READY/,
        devices,
        limitMs: BOOT_LIMIT_MS,
        attempts: 2,
      });
      return new OwnXenMachine(machine, await connectShells(machine.directory));
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  /** Keeps what dom0 and the domains have said. */
  async keepArtefacts(): Promise<void> {
    const target = await this.machine.keepArtefacts();
    const consoles = path.join(this.share, 'consoles');
    await mkdir(target, { recursive: true });
    for (const file of await readdir(consoles).catch(() => [])) {
      await cp(path.join(consoles, file), path.join(target, file));
    }
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]();
    await this.machine[Symbol.asyncDispose]();
  }
}

function connectShells(directory: string): Promise<GuestAgent[]> {
  return Promise.all(
    Array.from({ length: SHELLS }, (_, number) =>
      GuestAgent.connect(path.join(directory, `shell${number}.sock`)),
    ),
  );
}

/** A folder that is shared with dom0, and ports to its shells and to consoles of domains. */
function devices(directory: string): string[] {
  const share = path.join(directory, 'share');
  mkdirSync(share);
  const names = [
    ...Array.from({ length: SHELLS }, (_, number) => `shell${number}`),
    ...Array.from({ length: CONSOLES }, (_, number) => `console${number}`),
    'driver',
  ];
  return [
    ...['-fsdev', `local,id=share,path=${share},security_model=none`],
    ...['-device', 'virtio-9p-pci,fsdev=share,mount_tag=host'],
    ...['-device', 'virtio-serial-pci,id=ports'],
    ...names.flatMap((name) => [
      ...['-chardev', `socket,id=${name},path=${path.join(directory, `${name}.sock`)},server=on,wait=off`],
      ...['-device', `virtserialport,bus=ports.0,chardev=${name},name=${name}`],
    ]),
  ];
}

/** Where a Xen that was booted by hand says where it is. */
export const handBooted = path.join(projectDirectory, '.cache', 'live', 'xen.json');
