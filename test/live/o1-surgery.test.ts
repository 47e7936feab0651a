/**
 * Holds and releases processes of a live O(1) guest at random moments; the guest checks itself strictly meanwhile.
 * DOMSCHED_CYCLES=10000 is a soak.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { execa } from 'execa';
import { Guest } from '../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../runtime/hypervisor/capability.ts';
import { QemuHost } from '../../runtime/hypervisor/qemu/host.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { CycleTable, pick } from './cycles.ts';
import { bootO1, buildO1, kernelFile, numbers, type O1Variant, usableAccelerator } from './o1.ts';
import { until } from './until.ts';

/** Holds, and as many releases, of each guest. */
const CYCLES = Number(process.env.DOMSCHED_CYCLES ?? 80);

const BURNERS = ['pi1', 'pi2', 'pi3', 'pi4', 'pi5'];
const LIMIT_MS = 120_000;
/** Programs say where they are every 20 ms. */
const LOOK_MS = 5;
const patient = { limitMs: LIMIT_MS };
const root = path.resolve(import.meta.dirname, '../..');

/** Kernels of all variants, extracted from what was just built, in a store of the test's own. */
async function extractAll(store: string, variants: readonly O1Variant[]) {
  await buildO1();
  for (const variant of variants) {
    await execa(process.execPath, ['domsched.ts', 'extract', kernelFile(variant), '--out', store], {
      cwd: root,
    });
  }
  return knownKernels([path.join(store, 'registry.ts')]);
}

let store: string;

test.before(async (t) => {
  store = await mkdtemp(path.join(tmpdir(), 'o1-layouts-'));
  t.log(`guests run on ${await usableAccelerator()}`);
});

test.after.always(() => rm(store, { recursive: true, force: true }));

for (const variant of ['base', 'preempt', 'schedstats'] as const) {
  test.serial(
    `${variant}: held processes stand still, released ones go on, the guest stays well`,
    async (t) => {
      t.timeout(900_000 + 2_000 * CYCLES);
      const kernels = await extractAll(path.join(store, variant), [variant]);
      const socket = path.join(store, `${variant}.sock`);
      await using guest = await bootO1({
        variant,
        cpus: 2,
        // The pair never rests: it gets what the others leave, or these would wait for it most of the time.
        commandLine: 'report=20 run=pi1:7,pi2:7,pi3:8,pi4:6,pi5:7,sleeper,pair:19,forker',
        extraArguments: ['-qmp', `unix:${socket},server=on,wait=off`],
      });
      for (const name of BURNERS) await guest.waitFor(new RegExp(`^${name} `));
      await using host = new QemuHost(`qemu:unix:${socket}`, () => [{ qmp: socket }]);
      await using domain = await host.open(socket);
      requireCapabilities(domain, 'pause', 'writeFrames', 'registers');
      const attached = await Guest.attach(domain, kernels);
      const surgeon = new Surgeon(domain, attached, holderFor(attached));
      const progress = (name: string) =>
        numbers(guest.lines.findLast((line) => line.startsWith(`${name} `))!).progress!;
      const { processes } = attached.snapshot();
      const find = (name: string) => processes.find(({ comm }) => comm === name)!;
      const goesOn = (name: string, before: number) =>
        until(`${name} goes on after its release`, () => progress(name) !== before, LIMIT_MS, LOOK_MS);
      const hasSaid = (name: string, from: number) =>
        guest.lines.slice(from).some((line) => line.startsWith(`${name} `));
      /**
       * That programs make no progress while each of the others gets its turn. What they had said before they were
       * stopped may still be on its way to us: what anybody says after that comes after it.
       */
      const standStill = async (...held: string[]): Promise<number[]> => {
        const others = BURNERS.filter((name) => !held.includes(name));
        for (let tries = 0; ; tries++) {
          const before = held.map(progress);
          const from = guest.lines.length;
          const anyone = () => others.some((name) => hasSaid(name, from));
          await until('the others have the CPUs', anyone, LIMIT_MS, LOOK_MS);
          if (held.every((name, i) => progress(name) === before[i])) break;
          if (tries === 20) t.fail(`${held.join(', ')}: progress while held`);
        }
        const before = held.map(progress);
        const from = guest.lines.length;
        const everyone = () => others.every((name) => hasSaid(name, from));
        await until('each of the others has its turn', everyone, LIMIT_MS, LOOK_MS);
        t.deepEqual(held.map(progress), before, 'what is held makes no progress');
        return before;
      };
      const table = new CycleTable(variant);
      // What was released must have gone on before it is held again.
      const released = new Map<string, number>();
      while (table.holds < CYCLES) {
        // What is left must keep both CPUs busy, or nothing is ever ready.
        const names = pick(BURNERS, 1 + Math.floor(Math.random() * 3));
        for (const name of names) {
          if (released.has(name)) await goesOn(name, released.get(name)!);
          const held = await table.time('hold', () => surgeon.hold(find(name), patient));
          if (held.outcome !== 'held') t.fail(`${name}: ${held.outcome}`);
        }
        const standing = await standStill(...names);
        for (const name of pick(names, names.length)) {
          const operation = await table.time('release', () => surgeon.release(find(name), patient));
          if (operation.outcome !== 'released') t.fail(`${name}: ${operation.outcome}`);
          released.set(name, standing[names.indexOf(name)]!);
        }
      }
      for (const [name, before] of released) await goesOn(name, before);
      for (const line of table.lines()) t.log(line);
      const troubles = guest.lines.filter((line) => /BUG|exception|out of memory|errors=[1-9]/.test(line));
      t.deepEqual(troubles, []);
      // Every queue's counters are what is linked in it: a look that is not so is none.
      t.true((await attached.take({ pause: true })).exact);
      attached.detach();
    },
  );
}
