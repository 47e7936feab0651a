import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { requireKernel } from '../../../kernels/cache.ts';
import { instantOf, type ThreadInstant, vcpuThread } from '../../bench/guest-window.ts';
import { DaemonProcess } from '../../live/daemon-process.ts';
import { bootDebian } from '../../live/guest.ts';
import { GuestCounter } from '../../live/guest-counters.ts';
import { until } from '../../live/until.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import { pin } from '../pin.ts';
import { type ProtectSample, TARGET_MS } from './judge.ts';

const ROUNDS = { glance: 6, short: 6, full: 24 };
const LEVEL_SECONDS = { glance: 1, short: 4, full: 6 };
const MODES = ['none', 'protect', 'idle-only', 'alone'] as const;
/** What the service needs of a CPU, for some seconds each: nothing, a little, some, much, in another order in each round. */
const LEVELS = [0, 0.02, 0.12, 0.5];
const WINDOW_MS = 1_000;
const INTERVAL_S = 0.05;
/** Both machines on one CPU of the host; daemon and measurement on the other one. */
const [OTHERS, MACHINES] = [0, 1];
/** Of the service's requests; programs/workload.c. */
const PER_SECOND = 100;
const CALIBRATION = { loops: 200n, seconds: 2 };
const LIMIT_MS = 120_000;
const KEYS = `interval = ${INTERVAL_S}\nidleInterval = ${INTERVAL_S}\nmaxHold = false`;
const SUBJECT = 'select = [{ domain = "batch", comm = "job" }]';
const POLICIES = {
  none: '',
  alone: '',
  'idle-only': `[[policy]]\ntype = "idle-only"\n${SUBJECT}`,
  protect: `[[policy]]\ntype = "protect"\n${SUBJECT}\nprotect = [{ domain = "db", comm = "service" }]\nwait = ${TARGET_MS / 1000}`,
} as const;

async function boot(name: string, kind: 'service' | 'burner', comm: string) {
  const machine = await bootDebian({
    name,
    cpus: 1,
    memory: 256,
    programs: [{ kind, name: comm }],
    shellNice: -10,
  });
  await pin(machine.process.pid!, MACHINES);
  return machine;
}

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-protect-'));
  await using _remove = { [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) };
  await using db = await boot('db', 'service', 'service');
  await using batch = await boot('batch', 'burner', 'job');
  using service = GuestCounter.open(db, 'service');
  const [serviceThread, batchThread] = [await vcpuThread(db), await vcpuThread(batch)];
  await using daemon = new DaemonProcess(directory, [db.connection, batch.connection]);
  process.once('exit', () => {
    if (daemon.pid !== undefined) process.kill(daemon.pid, 'SIGKILL');
  });
  await daemon.extract(requireKernel('debian-6.1-cloud').vmlinux);
  await daemon.configure('', KEYS);
  await pin(daemon.start().pid!, OTHERS);
  await until(
    'both domains are attached',
    () => daemon.log().filter(({ msg }) => msg === 'attached').length === 2,
    LIMIT_MS,
  );
  const loops = await calibrated();
  for (let round = 0; round < ROUNDS[form]; round++) {
    const levels = LEVELS.map((_, i) => LEVELS[(i * 3 + round) % LEVELS.length]!);
    for (const mode of round % 2 === 0 ? MODES : MODES.toReversed()) {
      const begun = daemon.logged();
      await runs(mode !== 'alone');
      await daemon.configure(POLICIES[mode], KEYS);
      daemon.signal('SIGHUP');
      await daemon.logs(({ msg }) => msg === 'configuration read again', begun);
      for (const [i, level] of levels.entries()) {
        service.write(1, BigInt(Math.round(level * loops)));
        for (let second = 0; second < LEVEL_SECONDS[form]; second++)
          put({ round, mode, level, window: i * LEVEL_SECONDS[form] + second, ...(await windowOf()) });
      }
      const trouble = daemon.log(begun).find(({ level }) => level >= 50);
      if (trouble !== undefined) throw new Error(`the daemon: ${JSON.stringify(trouble)}`);
    }
    say(`round ${round + 1} of ${ROUNDS[form]}`);
  }
  await daemon.end('SIGTERM');
  for (const machine of [db, batch]) machine.checkConsole();
  return {
    accelerator: db.accelerator,
    guests: [
      `db (the service) and batch (the job): Debian ${db.kernel.release}, 1 vCPU each, both on one CPU of the host`,
    ],
  };

  async function runs(does: boolean): Promise<void> {
    await batch.run(`kill -${does ? 'CONT' : 'STOP'} $(pidof job)`);
  }

  /** What the service is told to do for one request to need all of a CPU. */
  async function calibrated(): Promise<number> {
    await runs(false);
    const before = await instants();
    await sleep(CALIBRATION.seconds * 1000);
    const idle = await instants();
    service.write(1, CALIBRATION.loops);
    const count = service.read();
    await sleep(CALIBRATION.seconds * 1000);
    const after = await instants();
    const requests = Number(service.read() - count);
    const ran = (from: ThreadInstant, to: ThreadInstant) => Number(to.ranNs - from.ranNs);
    // Beside what the guest does without any.
    const ns = ran(idle.service, after.service) - ran(before.service, idle.service);
    return (Number(CALIBRATION.loops) * (1e9 / PER_SECOND)) / (ns / requests);
  }

  async function windowOf(): Promise<Omit<ProtectSample, 'round' | 'mode' | 'level' | 'window'>> {
    const from = await instants();
    await sleep(WINDOW_MS);
    const to = await instants();
    const ms = (key: 'ranNs' | 'waitedNs', of: 'service' | 'batch') =>
      Number(to[of][key] - from[of][key]) / 1e6;
    return {
      ms: Number(to.service.ns - from.service.ns) / 1e6,
      ranMs: ms('ranNs', 'service'),
      waitedMs: ms('waitedNs', 'service'),
      batchMs: ms('ranNs', 'batch'),
    };
  }

  async function instants() {
    return { service: instantOf(serviceThread), batch: instantOf(batchThread) };
  }
}
