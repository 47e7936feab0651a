/**
 * A process is killed, reaped and its memory used again at the very moment of its release, before an idle CPU without a
 * tick has come to wake it: whatever that CPU then touches has to be there still.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import type { Edit } from '../../runtime/edit/edit.ts';
import type { DomschedError } from '../../runtime/error.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { advance } from '../../runtime/memory/address.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { parkMembers } from '../../runtime/technique/park/members.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { PATIENCE_MS } from './cycles.ts';
import { bootDebian } from './guest.ts';
import { GuestCounter } from './guest-counters.ts';
import { until } from './until.ts';

const ROUNDS = 6;
/** Words of the reaper's page: see programs/workload.c. */
const [COUNT, COMMAND, PID, ROUND] = [0, 1, 2, 3];
/** Long enough for both CPUs to stop their ticks. */
const QUIET_MS = 300;

for (const kernel of ['debian-6.1-cloud', 'debian-6.12-cloud']) {
  test.serial(`${kernel}: killed, reaped and freed while an idle CPU is to wake it`, async (t) => {
    t.timeout(600_000);
    await using guest = await bootDebian({ kernel, programs: [{ kind: 'reaper', name: 'reaper' }] });
    await using domain = await QemuDomain.attach({ qmp: guest.sockets.qmp }, guest.connection);
    const attached = await Guest.attach(domain, await knownKernels());
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    using page = GuestCounter.open(guest, 'reaper');
    const outcomes: string[] = [];
    let freed = 0;
    for (let round = 1n; round <= ROUNDS; round++) {
      await until(`round ${round}`, async () => page.read(ROUND) === round, PATIENCE_MS);
      const processes = await processesOf(attached);
      const child = processes.find(({ pid }) => pid === Number(page.read(PID)))!;
      t.is((await surgeon.hold(child, { limitMs: PATIENCE_MS })).outcome, 'held');
      await sleep(QUIET_MS);
      // Called before the first byte is written: the guest reads the command when it goes on.
      const journal = async (edit: Edit) => {
        page.write(COMMAND, round);
        if (edit.writes.some(({ what }) => what.includes('delayed_put_task_struct'))) freed += 1;
      };
      const released = surgeon.release(child, { limitMs: PATIENCE_MS, journal });
      outcomes.push(
        await released.then(
          ({ outcome }) => outcome,
          ({ code }: DomschedError) => code,
        ),
      );
      await until(`the end of round ${round}`, async () => page.read(COUNT) === round, PATIENCE_MS);
    }
    t.log(outcomes.join(', '), `${freed} freed by another thread of the guest`);
    t.true(outcomes.every((outcome) => ['released', 'process-not-found'].includes(outcome)));
    // The next operation gives back what is left.
    await until('one more child', async () => page.read(ROUND) === BigInt(ROUNDS + 1), PATIENCE_MS);
    const processes = await processesOf(attached);
    const child = processes.find(({ pid }) => pid === Number(page.read(PID)))!;
    await surgeon.hold(child, { limitMs: PATIENCE_MS });
    await surgeon.release(child, { limitMs: PATIENCE_MS });
    domain.tick();
    t.deepEqual([...new Set(forged(attached))], [0], 'all words are given back');
    guest.checkConsole();
    attached.detach();
  });
}

/** The bytes that forged works may be in. */
function forged(guest: Guest): number[] {
  const { irqWorkHomes, irq_work } = parkMembers(guest.layout);
  return guest.cpus.flatMap((cpu) =>
    irqWorkHomes.flatMap((home) => [
      ...guest.space.readBytes(advance(guest.percpu('runqueues', cpu), home), irq_work.size),
    ]),
  );
}
