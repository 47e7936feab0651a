import { writeSync } from 'node:fs';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { Draft } from '../../../runtime/edit/draft.ts';
import { commit } from '../../../runtime/edit/transaction.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { QemuDomain } from '../../../runtime/hypervisor/qemu/domain.ts';
import { watchdog } from '../../../runtime/hypervisor/qemu/watchdog.ts';
import type { PauseGuard } from '../../../runtime/hypervisor/types.ts';
import { XenHost } from '../../../runtime/hypervisor/xen/host.ts';
import { ModelMemory } from '../edit/model-memory.ts';

// A program that edits a model guest under pauses of a real backend, and gets a signal (SIGSTOP) at every moment that it
// is told: it says so first, and afterwards what became of the edit.
const [kind = '', place = '', signal = '', ...moments] = process.argv.slice(2);
const WORD = { offset: 0, size: 8 } as const;
const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
watchdog.lookMs = Number(process.env.DOMSCHED_TEST_LOOK_MS ?? 100);
const domain =
  kind === 'xen'
    ? await (await XenHost.connect('xen:', { root: place, libraries: place })).open('5')
    : await QemuDomain.attach({ qmp: place }, `qemu:unix:${place}`);

for (const moment of moments) {
  const memory = new ModelMemory();
  const places = [memory.take(64), memory.take(64), memory.take(64)];
  const words = () => places.map((at) => Number(memory.load(at, WORD)));
  const draft = new Draft(memory.space);
  for (const at of places) draft.set(at, 8, 7n, 'a word');
  const edit = draft.edit('an edit', [], []);

  const tell = (what: object) => writeSync(1, `${JSON.stringify(what)}\n`);
  const reach = (now: string) => {
    if (now !== moment) return;
    tell({ at: moment, words: words() });
    isEnding = signal !== 'SIGSTOP';
    process.kill(process.pid, signal);
  };
  let isEnding = false;
  const guard = await domain.pause!.acquire();
  if (kind === 'qemu') await domain.registers!.read();
  let [proofs, quiet, written] = [0, 0, 0];
  const watched: PauseGuard = Object.create(guard, {
    valid: { get: () => guard.valid },
    prove: {
      value: async () => {
        // The signal comes by the event loop, and maybe after QEMU's answer.
        if (isEnding) await new Promise(() => undefined);
        const proof = await guard.prove();
        reach(`proof ${++proofs}`);
        return proof;
      },
    },
    keepOnDeath: {
      value: (keep: boolean) => {
        guard.keepOnDeath(keep);
        reach(keep ? 'kept' : 'over');
      },
    },
    isQuiet: {
      value: () => {
        const is = guard.isQuiet();
        reach(`quiet ${++quiet}`);
        return is;
      },
    },
  });
  memory.domain.recorder.onCall((call) => {
    if (call.kind === 'write') reach(`word ${++written}`);
  });
  let outcome = 'committed';
  try {
    reach('planned');
    await commit(memory.domain, memory.space, watched, edit, async () => {
      reach('journal');
      return undefined;
    });
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    outcome = error.code;
  }
  tell({ outcome, words: words() });
  await guard.release();
  await orders.next();
}
process.exit(0);
