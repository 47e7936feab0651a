/**
 * `node test/bench/surgery.bench.ts [--cycles N]`: how long an edit keeps a live domain paused, by kernel and
 * technique, and what takes that time: calls into the hypervisor (frames read and written, registers, state), or our
 * own language. Boots the O(1) guest and Debian's cloud kernels, two vCPUs each, with more burners than that. Prints a
 * table and writes `.cache/bench/surgery.json`.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { Guest } from '../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../runtime/hypervisor/capability.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import type { Domain, FrameReader, FrameWriter, PauseGuard } from '../../runtime/hypervisor/types.ts';
import { type KnownKernel, knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { type Operation, Surgeon } from '../../runtime/surgeon/surgeon.ts';
import type { Technique } from '../../runtime/technique/step.ts';
import { bootDebian } from '../live/guest.ts';
import { bootO1, kernelFile } from '../live/o1.ts';
import { TestLayouts } from '../live/ps-layouts.ts';
import { median, record } from './harness.ts';

const { values } = parseArgs({ options: { cycles: { type: 'string', default: '40' } } });
const cycles = Number(values.cycles);
const PATIENCE_MS = 60_000;
const BURNERS = ['b1', 'b2', 'b3', 'b4', 'b5'];

/** Time in calls into the hypervisor, in µs. */
class Meter {
  /** While the domain was paused. */
  inside = 0;
  /** Telling the hypervisor to stop and to go on. */
  switching = 0;
  calls = 0;

  /** A domain whose calls are timed. Its object has private parts, so it is asked itself. */
  of<D extends Domain>(domain: D): D {
    const frames: FrameReader = Object.assign(Object.create(domain.frames), {
      regions: () => domain.frames.regions(),
      read: (batch: Parameters<FrameReader['read']>[0]) =>
        this.#timed(domain, () => domain.frames.read(batch)),
    });
    const writeFrames: FrameWriter = {
      write: (writes) => this.#timed(domain, () => domain.writeFrames!.write(writes)),
    };
    const registers = { read: () => this.#awaited(domain, () => domain.registers!.read()) };
    const pause = {
      get depth() {
        return domain.pause!.depth;
      },
      acquire: () => this.#pause(domain),
    };
    const timed: Record<string | symbol, unknown> = {
      frames,
      writeFrames,
      registers,
      pause,
      state: () => this.#awaited(domain, () => domain.state()),
    };
    return new Proxy(domain, {
      get: (target, key) => {
        if (key in timed) return timed[key];
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  reset(): void {
    this.inside = 0;
    this.switching = 0;
    this.calls = 0;
  }

  async #pause(domain: Domain): Promise<PauseGuard> {
    const start = performance.now();
    const guard = await domain.pause!.acquire();
    this.switching += (performance.now() - start) * 1000;
    return new Proxy(guard, {
      get: (target, key) => {
        if (key === 'release') {
          return async () => {
            const begin = performance.now();
            await target.release();
            this.switching += (performance.now() - begin) * 1000;
          };
        }
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  #timed<T>(domain: Domain, call: () => T): T {
    const start = performance.now();
    const result = call();
    this.#count(domain, start);
    return result;
  }

  async #awaited<T>(domain: Domain, call: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const result = await call();
    this.#count(domain, start);
    return result;
  }

  #count(domain: Domain, start: number): void {
    if (domain.pause!.depth === 0) return;
    this.inside += (performance.now() - start) * 1000;
    this.calls += 1;
  }
}

interface OperationSample extends Pick<Operation, 'attempts' | 'pausedUs' | 'writes'> {
  readonly hypervisorUs: number;
  readonly switchingUs: number;
  readonly calls: number;
}

interface SurgeryRow {
  readonly kernel: string;
  readonly technique: string;
  readonly operation: string;
  readonly samples: OperationSample[];
}

const rows: SurgeryRow[] = [];

/** Holds and releases burners in turn, each way that is asked for. */
async function run(
  kernel: string,
  domain: Domain,
  known: readonly KnownKernel[],
  ways: readonly (readonly Technique[])[],
): Promise<void> {
  const meter = new Meter();
  const metered = meter.of(domain);
  requireCapabilities(metered, 'pause', 'writeFrames', 'registers');
  const guest = await Guest.attach(metered, known);
  const surgeon = new Surgeon(metered, guest, holderFor(guest));
  const { processes } = await guest.take();
  const targets = processes.filter(({ comm }) => BURNERS.includes(comm) || /^pi\d$/.test(comm));
  for (const techniques of ways) {
    const technique = techniques.join('+');
    const row = (operation: string): SurgeryRow => {
      const made = { kernel, technique, operation, samples: [] };
      rows.push(made);
      return made;
    };
    const [hold, release] = [row('hold'), row('release')];
    for (let cycle = -3; cycle < cycles; cycle++) {
      const target = targets[(cycle + 3) % targets.length]!;
      for (const [into, operate] of [
        [hold, () => surgeon.hold(target, { techniques, limitMs: PATIENCE_MS })],
        [release, () => surgeon.release(target, { limitMs: PATIENCE_MS })],
      ] as const) {
        meter.reset();
        const { attempts, pausedUs, writes } = await operate();
        const { inside: hypervisorUs, switching: switchingUs, calls } = meter;
        // The first ones load and compile.
        if (cycle >= 0) into.samples.push({ attempts, pausedUs, writes, hypervisorUs, switchingUs, calls });
        await sleep(20);
      }
    }
  }
  guest.detach();
}

const directory = await mkdtemp(path.join(tmpdir(), 'domsched-bench-'));
try {
  {
    const socket = path.join(directory, 'o1.sock');
    await using layouts = await TestLayouts.of(kernelFile('base'));
    await using machine = await bootO1({
      cpus: 2,
      commandLine: 'report=1000 run=pi1,pi2,pi3,pi4',
      extraArguments: ['-qmp', `unix:${socket},server=on,wait=off`],
    });
    for (const name of ['pi1', 'pi2', 'pi3', 'pi4']) await machine.waitFor(new RegExp(`^${name} `));
    await using domain = await QemuDomain.attach({ qmp: socket }, `qemu:unix:${socket}`);
    await run('O(1)', domain, layouts.known, [['splice', 'state']]);
  }
  const known = await knownKernels();
  for (const [kernel, name] of [
    ['debian-6.1-cloud', 'CFS 6.1'],
    ['debian-6.12-cloud', 'EEVDF 6.12'],
  ] as const) {
    const programs = BURNERS.map((burner) => ({ kind: 'burner', name: burner }) as const);
    await using machine = await bootDebian({ kernel, programs });
    await using domain = await QemuDomain.attach(machine.sockets, machine.connection);
    await run(name, domain, known, [['park'], ['splice'], ['state']]);
    machine.checkConsole();
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}

const table = new Table({
  head: [
    'kernel',
    'technique',
    'operation',
    'pauses',
    'words',
    'paused, µs',
    'hypervisor',
    'ours',
    'ours, %',
    'stop+cont',
  ],
  colAligns: ['left', 'left', 'left', ...Array.from({ length: 7 }, () => 'right' as const)],
  style: { head: [], border: [] },
});
const figures = rows.map(({ kernel, technique, operation, samples }) => {
  const of = (figure: (sample: OperationSample) => number) => median(samples.map(figure));
  return {
    kernel,
    technique,
    operation,
    cycles: samples.length,
    pauses: of(({ attempts }) => attempts),
    words: of(({ writes }) => writes),
    pausedUs: of(({ pausedUs, attempts }) => pausedUs / attempts),
    hypervisorUs: of(({ hypervisorUs, attempts }) => hypervisorUs / attempts),
    oursUs: of(({ pausedUs, hypervisorUs, attempts }) => (pausedUs - hypervisorUs) / attempts),
    oursShare: of(({ pausedUs, hypervisorUs }) => 1 - hypervisorUs / pausedUs),
    switchingUs: of(({ switchingUs, attempts }) => switchingUs / attempts),
  };
});
for (const row of figures) {
  const whole = (value: number) => value.toFixed(0);
  table.push([
    row.kernel,
    row.technique,
    row.operation,
    whole(row.pauses),
    whole(row.words),
    ...[row.pausedUs, row.hypervisorUs, row.oursUs, 100 * row.oursShare, row.switchingUs].map(whole),
  ]);
}
console.log(`medians of ${cycles} operations; times per pause, from when the domain stands still`);
console.log(table.toString());
await record('surgery', { figures });
