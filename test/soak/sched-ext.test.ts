/**
 * A guest that has loaded a scheduler (sched_ext, 6.12), which has all ordinary threads in queues of its own: `ps` is right,
 * park holds them, splice and state are refused with the reason. On every kernel of the suites whose configuration has it;
 * DOMSCHED_MATRIX=7.3 tries some.
 */
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import { type SuiteKernel, suiteKernels, suitesData } from '../../kernels/suites.ts';
import type { DomschedError } from '../../runtime/error.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { type KnownKernel, knownKernels, registryPaths } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { compareWithProc, READ_STATS } from '../live/against-proc.ts';
import { Cycles, CycleTable, findProcess, goesOn, PATIENCE_MS } from '../live/cycles.ts';
import { bootImage } from '../live/guest.ts';
import { guestBinary } from '../live/initramfs.ts';
import { parseProcStats } from '../live/proc-stat.ts';

const CYCLES = Number(process.env.DOMSCHED_CYCLES ?? 20);
/** Of how many processes the guest says that they are in the loaded scheduler's class (CONFIG_SCHED_DEBUG). */
const CLASSES = "grep -lE 'ext.enabled *: *1' /proc/[0-9]*/sched 2>/dev/null | wc -l";
const programs = [
  ...['burner-a', 'burner-b', 'burner-c', 'burner-d'].map((name) => ({ kind: 'burner', name }) as const),
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'calls', name: 'calls-a' },
  { kind: 'pipe', name: 'pipe-a' },
] as const;
const names = programs.map(({ name }) => name);
const burners = names.filter((name) => name.startsWith('burner'));

const wanted = (process.env.DOMSCHED_MATRIX ?? '').split(',');
const known = await knownKernels(registryPaths({ XDG_DATA_HOME: suitesData }));
const chosen: SuiteKernel[] = [];
for (const kernel of suiteKernels()) {
  const layout = await known.find(({ release }) => release === kernel.release)?.load();
  const has = layout?.has('rq', 'scx.nr_running') ?? false;
  if (has && wanted.some((part) => kernel.release.includes(part))) chosen.push(kernel);
}
if (chosen.length === 0)
  test('kernels with sched_ext', (t) =>
    t.fail('they are not here: run `make kernels-all`, then `node kernels/complete.ts`'));

for (const kernel of chosen) {
  test.serial(`${kernel.release}: a loaded scheduler`, async (t) => {
    t.timeout(1_200_000 + 6_000 * CYCLES);
    await loaded(t, kernel, known);
  });
}

async function loaded(
  t: ExecutionContext,
  kernel: SuiteKernel,
  known: readonly KnownKernel[],
): Promise<void> {
  await using guest = await bootImage(kernel.vmlinuz, {
    name: `scx-${kernel.release.replaceAll(/[^0-9a-z]/g, '-')}`,
    programs,
    shellNice: -10,
    files: { 'bin/scx': await guestBinary('scx') },
  });
  t.regex(await guest.run('chmod 755 /bin/scx; /bin/scx 2>&1'), /loaded/);
  const isLoaded = async () => {
    t.is((await guest.run('cat /sys/kernel/sched_ext/state')).trim(), 'enabled');
    t.is((await guest.run('cat /sys/kernel/sched_ext/root/ops')).trim(), 'nothing');
  };
  await isLoaded();
  const taken = Number(await guest.run(CLASSES));
  t.true(taken > names.length, `${taken} processes are the loaded scheduler's`);
  t.log(`${taken} processes are the loaded scheduler's`);
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const attached = await Guest.attach(domain, known);
  // Threads that are in none of the queues that we know are counted all the same.
  t.is(attached.queuesUnknown, attached.queueSlots.unknown);
  await goesOn(t, guest, Object.fromEntries(names.map((name) => [name, 0])));
  for (let look = 0; look < 5; look++) {
    const before = parseProcStats(await guest.run(READ_STATS));
    const seen = await processesOf(attached);
    compareWithProc(t, before, seen, parseProcStats(await guest.run(READ_STATS)));
  }

  const surgeon = new Surgeon(domain, attached, holderFor(attached));
  const { techniques } = surgeon.ways;
  for (const technique of ['splice', 'state'] as const) {
    if (!techniques.includes(technique)) continue;
    const target = findProcess(await processesOf(attached), 'burner-a');
    const before = await guest.progress('burner-a');
    const options = { limitMs: PATIENCE_MS, techniques: [technique] };
    const error = await t.throwsAsync<DomschedError>(surgeon.hold(target, options), undefined, technique);
    t.is(error?.code, 'refused', `${technique}: ${error?.message}`);
    t.regex(error!.message, /sched_ext|of a scheduler that was loaded/);
    await goesOn(t, guest, before);
  }

  const table = new CycleTable(kernel.release);
  {
    using cycles = new Cycles(t, guest, surgeon, table, names, burners);
    for (let round = 0; round < CYCLES; round++) {
      const process = findProcess(await processesOf(attached), names[round % names.length]!);
      await cycles.round([{ process, technique: 'park' }]);
    }
    await cycles.end();
  }
  t.is(table.holds, CYCLES);
  for (const line of table.lines()) t.log(line);
  // It was not thrown out, as one is that leaves a thread waiting for too long.
  await isLoaded();
  await goesOn(t, guest, await guest.progress(...names));
  attached.detach();
  guest.checkConsole();
}
