import { setTimeout as sleep } from 'node:timers/promises';
import { instantOf, partsOf, vcpuThread } from '../../bench/guest-window.ts';
import { GuestCounters } from '../../live/guest-counters.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import type { Fig7Sample } from '../fig7/judge.ts';
import { ExperimentXen } from '../xen/xen.ts';
import type { LookedAt } from './look-in-dom0.ts';

/** So long that the paper's way is through with a look before the next. */
const INTERVAL_MS = 200;
const WINDOW_MS = 2_000;
const ROUNDS = { glance: 6, short: 16, full: 60 };
const NAMES = ['pi1', 'pi2'];
const FOLDER = '/run/fig7';
const WAYS = ['none', 'ours', 'paper'] as const;
/** A program in an emulated dom0 takes long to start. */
const START_MS = 600_000;
const SETTLE_MS = 300;

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  await using machine = await ExperimentXen.boot();
  const { xen } = machine;
  const domain = await machine.domain({
    name: 'u1',
    programs: NAMES.map((name) => ({ kind: 'burner', name })),
  });
  const domid = await domain.id();
  const paper = await machine.compile('test/experiments/xen-fig7/paper-look.c');
  const looker = await machine.module('test/experiments/xen-fig7/look-in-dom0.ts');
  await xen.must(`mkdir ${FOLDER}`);
  const pid = (
    await xen.must(
      `node ${looker} ${domain.name} ${INTERVAL_MS} ${FOLDER} >${FOLDER}/out 2>&1 & p=$!; until [ -e ${FOLDER}/places.json ]; do kill -0 $p || { cat ${FOLDER}/out >&2; exit 1; }; sleep 0.5; done; echo $p`,
      START_MS,
    )
  ).trim();
  const places = JSON.parse(await xen.must(`cat ${FOLDER}/places.json`)) as string[];
  using counters = new GuestCounters(xen.machine, NAMES);
  const thread = await vcpuThread(xen.machine);
  /** Begins to look. @returns what ends it, with what it has seen */
  const looks: Readonly<Record<Fig7Sample['way'], () => Promise<() => Promise<LookedAt>>>> = {
    none: async () => async () => ({ looks: 0, seen: NAMES }),
    ours: async () => {
      await xen.must(`rm -f ${FOLDER}/looks.json; kill -USR2 ${pid}`);
      return async () =>
        JSON.parse(
          await xen.must(`kill -HUP ${pid}; until cat ${FOLDER}/looks.json 2>/dev/null; do sleep 0.1; done`),
        ) as LookedAt;
    },
    paper: async () => {
      const command = [paper, domid, INTERVAL_MS * 1000, ...places].join(' ');
      await xen.must(`${command} >${FOLDER}/paper.json 2>&1 & echo $! >${FOLDER}/paper.pid`);
      return async () => {
        const ended = `p=$(cat ${FOLDER}/paper.pid); kill $p; while kill -0 $p 2>/dev/null; do sleep 0.1; done`;
        return JSON.parse(await xen.must(`${ended}; cat ${FOLDER}/paper.json`)) as LookedAt;
      };
    },
  };
  for (let round = 0; round < ROUNDS[form]; round++) {
    for (const way of round % 2 === 0 ? WAYS : WAYS.toReversed()) {
      const end = await looks[way]();
      await sleep(SETTLE_MS);
      const [from, before] = [instantOf(thread), counters.progress(...NAMES)];
      await sleep(WINDOW_MS);
      const [to, after] = [instantOf(thread), counters.progress(...NAMES)];
      const looked = await end();
      if (!NAMES.every((name) => looked.seen.includes(name)))
        throw new Error(`${way}: of ${NAMES.join(', ')} it sees ${looked.seen.join(', ')}`);
      const { ns, ran, waited } = partsOf(from, to);
      const [pi1, pi2] = NAMES.map((name) => ((after[name]! - before[name]!) * 1e9) / ns) as [number, number];
      put({
        ...{ intervalMs: INTERVAL_MS, round, way, pi1, pi2, ran, waited },
        ...{ looks: looked.looks, cpuMsPerLook: 0 },
      } satisfies Fig7Sample);
    }
    say(`round ${round + 1} of ${ROUNDS[form]}`);
  }
  await xen.must(`kill ${pid}`);
  await machine.check();
  return machine.used('U1: pi1 and pi2');
}
