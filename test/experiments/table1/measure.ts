import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Guest } from '../../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../../runtime/hypervisor/capability.ts';
import { connect } from '../../../runtime/hypervisor/connect.ts';
import { QemuDomain } from '../../../runtime/hypervisor/qemu/domain.ts';
import type { DomainWith } from '../../../runtime/hypervisor/types.ts';
import { StoppedThreads } from '../../../runtime/hypervisor/vmm/stopped-threads.ts';
import { machineThreads } from '../../../runtime/hypervisor/vmm/vcpu-threads.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import type { GuestVirtual } from '../../../runtime/memory/address.ts';
import { findProcess } from '../../live/cycles.ts';
import { bootDebian } from '../../live/guest.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import { PaperWay } from '../paper-way.ts';
import type { Table1Sample } from './judge.ts';

const ROUNDS = { glance: 8, short: 150, full: 1_500 };
const WARM_UP = 5;
/** The guest goes on for a moment, as it does between the ticks of a scheduler. */
const REST_MS = 2;

interface Pausing {
  readonly pause: 'QMP' | 'process';
  readonly domain: DomainWith<'pause'>;
  readonly guest: Guest;
}

/** Time that a call takes, in µs, and what it returns. */
function timed<T>(call: () => T): [us: number, result: T] {
  const start = performance.now();
  const result = call();
  return [(performance.now() - start) * 1000, result];
}

/** One word of a paused domain, by us and as the paper did, in the same pause. */
async function cycle(
  { pause, domain, guest }: Pausing,
  paper: PaperWay,
  address: GuestVirtual,
  oursFirst: boolean,
): Promise<Table1Sample> {
  const start = performance.now();
  const guard = await domain.pause.acquire();
  const paused = performance.now();
  const ours = () => {
    const [translate] = timed(() => guest.space.locate(address, 8));
    const [word, value] = timed(() => guest.space.readU64(address));
    return { translate, word, value };
  };
  const theirs = () => {
    const [translate, physical] = timed(() => paper.translate(address));
    const [map, page] = timed(() => paper.map(physical));
    const [word, value] = timed(() => paper.read(page));
    const [unmap] = timed(() => paper.unmap(page));
    return { translate, map: map + unmap, word, value };
  };
  const first = oursFirst ? ours() : theirs();
  const second = oursFirst ? theirs() : ours();
  const [us, them] = (oursFirst ? [first, second] : [second, first]) as [
    ReturnType<typeof ours>,
    ReturnType<typeof theirs>,
  ];
  const read = performance.now();
  await guard.release();
  const pauseUs = (paused - start + performance.now() - read) * 1000;
  if (us.value !== them.value) throw new Error(`two readers of one paused word: ${us.value}, ${them.value}`);
  return {
    pause,
    pauseUs,
    translateUs: us.translate,
    wordUs: us.word,
    paperTranslateUs: them.translate,
    paperMapUs: them.map,
    paperWordUs: them.word,
  };
}

/** The host's part of a pause by process: what is left where no translator has to be found between two instructions. */
function stopThreads(pid: number): number | undefined {
  try {
    return timed(() => StoppedThreads.stop(pid, () => machineThreads(pid).vcpus).release())[0];
  } catch {
    // It had no CPU of a busy host.
    return undefined;
  }
}

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  const known = await knownKernels();
  await using machine = await bootDebian({
    name: 'u1',
    kernel: 'debian-6.12-cloud',
    cpus: 1,
    memory: 256,
    programs: [
      { kind: 'burner', name: 'pi1' },
      { kind: 'burner', name: 'pi2' },
    ],
    // By their names the vCPUs' threads are told from others, without a monitor.
    extra: ['-name', 'guest=u1,debug-threads=on'],
  });
  const pid = machine.process.pid!;
  await using host = await connect(`pid:${pid}`);
  await using byProcess = await host.open(host.ids()[0]!);
  await using byMonitor = await QemuDomain.attach(machine.sockets, machine.connection);
  const ways: Pausing[] = [];
  for (const [pause, domain] of [
    ['QMP', byMonitor],
    ['process', byProcess],
  ] as const) {
    requireCapabilities(domain, 'pause');
    ways.push({ pause, domain, guest: await Guest.attach(domain, known) });
  }
  const [first] = ways as [Pausing, Pausing];
  using paper = new PaperWay(path.join(machine.directory, 'memory'), first.guest.space);
  const { processes } = await first.guest.take();
  const { address } = findProcess(processes, 'pi1');
  for (let round = -WARM_UP; round < ROUNDS[form]; round++) {
    for (const way of round % 2 === 0 ? ways : ways.toReversed()) {
      const sample = await cycle(way, paper, address, round % 4 < 2);
      await sleep(REST_MS);
      if (round >= 0) put(sample);
    }
    const us = stopThreads(pid);
    if (round >= 0 && us !== undefined) put({ pause: 'threads', pauseUs: us });
    await sleep(REST_MS);
    if (round > 0 && round % 50 === 0) say(`${round} of ${ROUNDS[form]} rounds`);
  }
  for (const { guest } of ways) guest.detach();
  machine.checkConsole();
  return {
    accelerator: machine.accelerator,
    guests: [`Debian ${machine.kernel.release}, 1 vCPU, pi1 and pi2`],
  };
}
