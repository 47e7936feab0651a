/** The O(1) guest runs every program on several CPUs, shares time as O(1) does, and finds nothing wrong with itself. */
import test, { type ExecutionContext } from 'ava';
import { bootO1, numbers, type O1Guest, type O1Variant, usableAccelerator } from './o1.ts';

const HZ = 250;

test.before(async (t) => {
  t.log(`guests run on ${await usableAccelerator()}`);
});

const last = (guest: O1Guest, name: string) => guest.lines.findLast((line) => line.startsWith(`${name} `));

function healthy(t: ExecutionContext, guest: O1Guest): void {
  t.deepEqual(
    guest.lines.filter((line) => /BUG|exception|no program|out of memory/.test(line)),
    [],
  );
}

/** Runs a guest to its own end and gives its lines. */
async function run(variant: O1Variant, cpus: number, commandLine: string): Promise<O1Guest> {
  await using guest = await bootO1({ variant, cpus, commandLine });
  await guest.waitFor(/end of run/, 90_000);
  await guest.ended(20_000);
  return guest;
}

/**
 * Ticks of CPU time (1/HZ s) that each task got between its first report after a second and the end of the run. The
 * first second is left out: a new task starts with a part of its parent's time slice.
 */
function shares(guest: O1Guest, names: string[]): number[] {
  return names.map((name) => {
    const lines = guest.lines.filter((line) => line.startsWith(`${name} `)).map(numbers);
    const first = lines.find((line) => line.t! >= 1000)!;
    const end = numbers(guest.lines.find((line) => line.includes(`comm=${name} `))!);
    return end.ticks! - first.ticks!;
  });
}

for (const variant of ['base', 'preempt', 'schedstats'] as const)
  for (const cpus of [2, 4])
    test.serial(`${variant} with ${cpus} CPUs runs every program, strictly checked`, async (t) => {
      t.timeout(900_000);
      const guest = await run(variant, cpus, 'strict stop=2 run=pi1,pi2:5,pi3:10,sleeper,pair,forker');
      healthy(t, guest);
      t.regex(guest.lines[0]!, /^Linux version 2\.6\.16\.33/);
      t.is(numbers(await guest.waitFor(/boot complete/)).cpus, cpus);
      for (const name of ['pi1', 'pi2', 'pi3', 'sleeper', 'pair', 'forker'])
        t.truthy(last(guest, name), `${name} reports`);
      for (const name of ['pi1', 'pi2', 'pi3', 'pair', 'forker'])
        t.is(numbers(last(guest, name)!).errors, 0, `${name} counts no error`);
      t.true(numbers(last(guest, 'pi1')!).progress! > 10);
      t.true(numbers(last(guest, 'pair')!).trips! > 0);
      t.true(numbers(last(guest, 'forker')!).children! >= 3);
      // Work moved to where it could run: every CPU was somebody's.
      const seen = new Set(
        guest.lines.filter((line) => /^\w+ pid=/.test(line)).map((line) => numbers(line).cpu),
      );
      t.is(seen.size, cpus);
    });

test.serial('burners on one CPU share it by nice as time slices say', async (t) => {
  t.timeout(900_000);
  const guest = await run('base', 2, 'strict stop=6 report=50 run=pi1:0@0,pi2:5@0,pi3:10@0,pi4:-5@1,pi5:0@1');
  healthy(t, guest);
  // Linux 2.6.16's rule: 100 ms * (140 - static_prio) / 20 from nice 0 on, four times that for less; in ticks.
  const slice = (nice: number) => Math.trunc(((nice < 0 ? 4 : 1) * (HZ / 10) * (20 - nice)) / 20);
  const close = (got: number[], nices: number[]) => {
    const sum = got.reduce((a, b) => a + b);
    const slices = nices.map(slice);
    const total = slices.reduce((a, b) => a + b);
    t.log(`nice ${nices}: ticks ${got}, slices ${slices}`);
    got.forEach((ticks, i) => {
      const expected = slices[i]! / total;
      // Runs end in the middle of a round: up to one slice of each either way.
      t.true(
        Math.abs(ticks / sum - expected) < 0.05 + slices[i]! / sum,
        `nice ${nices[i]}: ${ticks / sum} of the CPU, ${expected} expected`,
      );
    });
  };
  close(shares(guest, ['pi1', 'pi2', 'pi3']), [0, 5, 10]);
  close(shares(guest, ['pi4', 'pi5']), [-5, 0]);
});

test.serial('a sleeper on a CPU with burners runs when it wakes, not after their time slices', async (t) => {
  t.timeout(900_000);
  const guest = await run('base', 2, 'strict stop=5 run=pi1@0,pi2@0,pi3@0,pi4@1,sleeper:0@0/40/4');
  healthy(t, guest);
  const reports = guest.lines.filter((line) => line.startsWith('sleeper ')).map(numbers);
  const settled = reports.find(({ t: ms }) => ms! >= 2000)!;
  const end = reports.at(-1)!;
  const wakes = end.wakes! - settled.wakes!;
  const late = (end.late_ticks! - settled.late_ticks!) / wakes;
  t.log(`${wakes} wake-ups, ${late.toFixed(2)} ticks late on average`);
  t.true(wakes > 10);
  // Its turn in a queue of three burners would come after up to 3 slices of 25 ticks.
  t.true(late < 5, `${late} ticks late on average`);
});

test.serial('the balancer spreads burners over CPUs that they may use', async (t) => {
  t.timeout(900_000);
  const guest = await run('base', 4, 'strict stop=3 run=pi1,pi2,pi3,pi4');
  healthy(t, guest);
  const ends = guest.lines.filter((line) => /^task .*comm=pi/.test(line)).map(numbers);
  t.log(ends.map(({ cpu, ticks }) => `cpu ${cpu}: ${ticks} ticks`).join(', '));
  // Four CPUs for four burners: each has one of its own. Ticks are counted by CPUs that the host may hold up, so
  // that three seconds of them are not to be had on a busy one.
  t.is(new Set(ends.map(({ cpu }) => cpu)).size, 4);
  for (const { ticks } of ends) t.true(ticks! > HZ / 4, `${ticks}`);
});

test.serial(
  'one CPU alone runs everything: the UP variant, and SMP kernels on one and on eight',
  async (t) => {
    t.timeout(900_000);
    for (const [variant, cpus, expected] of [
      ['up', 2, 1],
      ['base', 1, 1],
      ['base-dwarf5', 8, 8],
    ] as const) {
      const guest = await run(variant, cpus, 'strict stop=1 run=pi1,pi2,sleeper,pair,forker');
      healthy(t, guest);
      t.is(numbers(await guest.waitFor(/boot complete/)).cpus, expected, variant);
      t.truthy(last(guest, 'pi1'));
    }
  },
);
