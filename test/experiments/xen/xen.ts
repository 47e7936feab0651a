/** The Xen that the live tests boot, for experiments: who runs in its domains is seen from outside all of it. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { requireKernel } from '../../../kernels/cache.ts';
import { projectDirectory } from '../../../kernels/paths.ts';
import { requireXen } from '../../../kernels/xen.ts';
import { TestLayouts } from '../../live/ps-layouts.ts';
import { type DomainOptions, XenTestDomain } from '../../live/xen-domain.ts';
import { OwnXenMachine } from '../../live/xen-machine.ts';
import { asModule } from '../../live/xen-remote.ts';
import type { UsedMachines } from '../experiment.ts';

const KERNEL = 'debian-6.1-cloud';
/** A program in an emulated dom0 may wait long for its CPU. */
const LIMIT_MS = 1_800_000;

export class ExperimentXen implements AsyncDisposable {
  readonly xen: OwnXenMachine;
  readonly #layouts: TestLayouts;
  readonly #domains: XenTestDomain[] = [];

  private constructor(xen: OwnXenMachine, layouts: TestLayouts) {
    this.xen = xen;
    this.#layouts = layouts;
  }

  /** Boots it, with the layout of its domains' kernel in dom0. */
  static async boot(): Promise<ExperimentXen> {
    const layouts = await TestLayouts.of(requireKernel(KERNEL).vmlinux);
    try {
      const store = path.join(layouts.dataHome, 'domsched');
      const files = [{ from: store, to: 'root/.local/share/domsched' }];
      return new ExperimentXen(await OwnXenMachine.boot({ memoryFile: true, files }), layouts);
    } catch (error) {
      await layouts[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** A PV domain with one vCPU, as the paper's domain U, up. */
  async domain(options: Omit<DomainOptions, 'console' | 'kernel' | 'type'>): Promise<XenTestDomain> {
    const console = this.#domains.length;
    const domain = await XenTestDomain.boot(this.xen, { vcpus: 1, ...options, kernel: KERNEL, console });
    this.#domains.push(domain);
    return domain;
  }

  /** Brings a file of the experiments into dom0, to run against the compiled program there. @returns where dom0 has it */
  async module(file: string): Promise<string> {
    const name = file.replaceAll('/', '-').replace(/\.ts$/, '.mjs');
    await writeFile(path.join(this.xen.share, name), await asModule(file));
    await this.xen.must(`cp /host/${name} /run`);
    return `/run/${name}`;
  }

  /** Runs a file of the experiments in dom0. @returns what it printed */
  async node(file: string, ...args: readonly string[]): Promise<string> {
    return this.xen.must(`node ${await this.module(file)} ${args.join(' ')}`, LIMIT_MS);
  }

  /** Compiles a C program against Xen's own libraries. @returns where dom0 has it */
  async compile(file: string): Promise<string> {
    const { root } = requireXen();
    const libraries = path.join(root, 'usr/lib/x86_64-linux-gnu');
    const name = path.basename(file, '.c');
    await execa('gcc', [
      ...[
        '-O2',
        '-Wall',
        '-Werror',
        '-o',
        path.join(this.xen.share, name),
        path.join(projectDirectory, file),
      ],
      ...[`-I${root}/usr/include`, `-L${libraries}`, `-Wl,-rpath-link,${libraries}`],
      ...['-lxenctrl', '-lxenforeignmemory'],
    ]);
    await this.xen.must(`cp /host/${name} /run`);
    return `/run/${name}`;
  }

  /** @throws Error with what Xen, dom0 or a domain has to complain of */
  async check(): Promise<void> {
    this.xen.machine.checkConsole();
    for (const domain of this.#domains) {
      const problems = await domain.problems();
      if (problems.length > 0) throw new Error(`${domain.name}: ${problems.join('\n')}`);
    }
  }

  /** @param guests what runs in them */
  used(guests: string): UsedMachines {
    const { release } = requireKernel(KERNEL);
    return {
      accelerator: 'tcg',
      xen: requireXen().version,
      guests: [
        `PV domains of Debian ${release}, 1 vCPU each, one physical CPU for them, dom0 and Xen; ${guests}`,
      ],
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const domain of this.#domains) domain.close();
    await this.xen[Symbol.asyncDispose]();
    await this.#layouts[Symbol.asyncDispose]();
  }
}
