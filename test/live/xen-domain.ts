import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CachedKernel, requireKernel } from '../../kernels/cache.ts';
import { GuestAgent } from './agent.ts';
import { PROBLEMS } from './console.ts';
import { type GuestProgram, makeInitramfs } from './initramfs.ts';
import { parseProgress } from './progress.ts';
import type { XenMachine } from './xen-machine.ts';

const BOOT_LIMIT_MS = 600_000;
/** What its init says. */
const READY = 'GUEST READY';
/** Times that a domain is created. */
const BOOT_ATTEMPTS = 3;
/** What a kernel says that waits for itself. A host without time makes it say so too, so the last boot may go on. */
const HUNG = /soft lockup|rcu:.*stall|detected stalls/;

export interface DomainOptions {
  name: string;
  type?: 'pv' | 'pvh';
  /** Id of `kernels/debian/*.json`. */
  kernel?: string;
  /** MiB. */
  memory?: number;
  vcpus?: number;
  programs?: readonly GuestProgram[];
  /** Shell lines that init runs before the programs. */
  setup?: string;
  /** A folder with all of whose files the domain begins, beside its own. */
  root?: string;
  /** Added to the kernel's command line. */
  append?: string;
  /** Which of the ports to consoles is its own. */
  console: number;
}

/** A domain of a test, in a Xen of a test. */
export class XenTestDomain {
  readonly xen: XenMachine;
  readonly name: string;
  readonly console: number;
  readonly kernel: CachedKernel;
  #agent: GuestAgent | undefined;
  /** Where on the console the last boot ended, or the one that is awaited begins. */
  #booted = 0;

  private constructor(xen: XenMachine, name: string, console: number, kernel: CachedKernel) {
    this.xen = xen;
    this.name = name;
    this.console = console;
    this.kernel = kernel;
  }

  /**
   * Creates a domain and waits until it is up. A kernel with two CPUs in an emulated hypervisor sometimes hangs before
   * that, whatever looks at it or not: then it is destroyed, and created again.
   */
  static async boot(xen: XenMachine, options: DomainOptions): Promise<XenTestDomain> {
    for (let attempt = 1; ; attempt++) {
      const domain = await XenTestDomain.create(xen, options);
      if (await domain.#isUp(attempt === BOOT_ATTEMPTS)) return domain;
      console.log(
        `# ${domain.name}: boot ${attempt} hangs, trying again:\n${(await domain.text()).slice(-500)}`,
      );
      domain.close();
      await xen.must(`xl destroy ${domain.name}`);
    }
  }

  /** Creates a domain without waiting for it. */
  static async create(xen: XenMachine, options: DomainOptions): Promise<XenTestDomain> {
    const kernel = requireKernel(options.kernel ?? 'debian-6.1-cloud');
    const { name } = options;
    const folder = path.join(xen.share, 'domains');
    await mkdir(folder, { recursive: true });
    await makeInitramfs(path.join(folder, `${name}.cpio`), { ...options, shell: 'hvc0', shellNice: -15 });
    const image = path.join(folder, path.basename(kernel.vmlinuz));
    if (!existsSync(image)) await copyFile(kernel.vmlinuz, image);
    await writeFile(
      path.join(folder, `${name}.cfg`),
      [
        `name = "${name}"`,
        `type = "${options.type ?? 'pv'}"`,
        `kernel = "/host/domains/${path.basename(image)}"`,
        `ramdisk = "/host/domains/${name}.cpio"`,
        `memory = ${options.memory ?? 160}`,
        `vcpus = ${options.vcpus ?? 2}`,
        `extra = "console=hvc0 quiet panic=-1 oops=panic ${options.append ?? ''}"`,
        // An operator would want to look; a test does.
        'on_crash = "preserve"',
        '',
      ].join('\n'),
    );
    const domain = new XenTestDomain(xen, name, options.console, kernel);
    domain.#booted = (await domain.text()).length;
    await xen.must(`xl create /host/domains/${name}.cfg`, 300_000);
    await domain.bridge();
    return domain;
  }

  /** A domain that {@link create} made, perhaps in another program. */
  static find(xen: XenMachine, name: string, console: number, kernel: CachedKernel): XenTestDomain {
    return new XenTestDomain(xen, name, console, kernel);
  }

  /** Connects to the console that the domain has now: after a reboot it is another one. */
  async bridge(): Promise<void> {
    const id = await this.id();
    await this.xen.must(`bridge-console ${id} console${this.console} >/dev/null 2>&1 &`);
  }

  /** Xen's number of the domain. */
  async id(): Promise<number> {
    return Number(await this.xen.must(`xl domid ${this.name}`));
  }

  /**
   * Waits until init of this boot is through: the first, or the next after the last that was awaited.
   * @throws Error with the end of the console
   */
  async ready(): Promise<void> {
    await this.#isUp(true);
  }

  /** @param patient waits even if it seems to hang */
  async #isUp(patient: boolean): Promise<boolean> {
    const start = Date.now();
    for (;;) {
      const text = (await this.text()).slice(this.#booted);
      const end = text.indexOf(READY);
      if (end >= 0) {
        this.#booted += end + READY.length;
        console.log(`# ${this.name}: up after ${Date.now() - start} ms more`);
        return true;
      }
      if (!patient && HUNG.test(text)) return false;
      if (Date.now() - start > BOOT_LIMIT_MS) {
        throw new Error(`${this.name} is not up within ${BOOT_LIMIT_MS} ms:\n${text.slice(-2000)}`);
      }
      await sleep(200);
    }
  }

  /** All that it has said on its console. */
  async text(): Promise<string> {
    const file = path.join(this.xen.share, 'consoles', `guest-${this.name}.log`);
    return readFile(file, 'utf8').catch(() => '');
  }

  /** Runs a line of shell in the domain. @returns what it printed */
  async run(command: string, timeoutMs = 240_000): Promise<string> {
    this.#agent ??= await GuestAgent.connect(path.join(this.xen.directory, `console${this.console}.sock`));
    return this.#agent.run(command, timeoutMs);
  }

  /** Starts loads beside those that init has started. */
  async start(...programs: readonly GuestProgram[]): Promise<void> {
    for (const { kind, name, nice } of programs) {
      await this.run(`workload ${kind} ${name} </dev/null & echo $! >>/run/loads; renice ${nice ?? 0} -p $!`);
    }
  }

  /** Stops the loads, or has them go on: a machine with one CPU has none to spare for those that nobody looks at. */
  async quiet(stop: boolean): Promise<void> {
    await this.run(`kill -${stop ? 'STOP' : 'CONT'} $(cat /run/loads)`);
  }

  /** What its programs have counted so far. */
  async progress(...names: string[]): Promise<Record<string, number>> {
    return parseProgress(await this.run(`workload progress ${names.join(' ')}`));
  }

  /** Lines on its console since the boot that mean trouble. */
  async problems(): Promise<string[]> {
    return (await this.text())
      .slice(this.#booted)
      .split(/\r?\n/)
      .filter((line) => PROBLEMS.test(line));
  }

  close(): void {
    this.#agent?.close();
    this.#agent = undefined;
  }
}
