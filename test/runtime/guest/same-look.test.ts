import { isDeepStrictEqual } from 'node:util';
import test from 'ava';
import fc from 'fast-check';
import { DomschedError } from '../../../runtime/error.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { defaultTasks, knownKernel, SYNTHETIC_KERNELS, SyntheticGuest } from './synthetic.ts';

/** What may happen to a guest between two looks: a member of some task changes, or bytes of any object. */
const change = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      what: fc.constantFrom(
        'nice',
        'state',
        'name',
        'cpu',
        'parent',
        'time',
        'mm',
        'exit',
        'flags',
        'tgid',
        'jobctl',
        'on_rq',
      ),
      task: fc.nat(),
      value: fc.nat(3),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      what: fc.constant('bytes' as const),
      task: fc.nat(),
      value: fc.integer({ min: 0, max: 255 }),
      at: fc.nat(),
    }),
  },
);
type GuestChange = typeof change extends fc.Arbitrary<infer T> ? T : never;

/** @returns what puts it back */
function apply(guest: SyntheticGuest, { what, task, value, ...rest }: GuestChange): () => void {
  const { layout, image } = guest;
  const tasks = [...guest.tasks.values()];
  const address = tasks[task % tasks.length]!;
  const places: Record<string, readonly [bigint, string, string]> = {
    nice: [address, 'task_struct', 'static_prio'],
    state: [address, 'task_struct', layout.has('task_struct', '__state') ? '__state' : 'state'],
    name: [address, 'task_struct', 'comm'],
    cpu: [address, 'task_struct', 'cpu'],
    parent: [address, 'task_struct', 'real_parent'],
    time: [address, 'task_struct', value < 2 ? 'utime' : 'stime'],
    mm: [address, 'task_struct', 'mm'],
    exit: [address, 'task_struct', 'exit_state'],
    flags: [address, 'task_struct', 'flags'],
    tgid: [address, 'task_struct', 'tgid'],
    jobctl: [address, 'task_struct', 'jobctl'],
    on_rq: [address, 'task_struct', 'on_rq'],
  };
  const [at, bytes] = ((): [number, Uint8Array] => {
    if ('at' in rest) {
      const objects = guest.objects.filter(({ struct }) =>
        /task_struct|signal_struct|thread_info/.test(struct),
      );
      const { address: object, struct } = objects[task % objects.length]!;
      return [guest.physical(object) + (rest.at % layout.requireStruct(struct).size), Uint8Array.of(value)];
    }
    const [object, struct, member] = places[what]!;
    const found = layout.has(struct, member) ? member : `thread_info.${member}`;
    if (!layout.has(struct, found)) return [guest.physical(object), Uint8Array.of()];
    const { offset, size } = layout.field(struct, found);
    const word = Buffer.alloc(size);
    if (what === 'parent') word.writeBigUInt64LE(tasks[value % tasks.length]!);
    else
      word[what === 'flags' ? 2 : 0] = what === 'flags' ? value << 4 : what === 'name' ? 0x61 + value : value;
    return [guest.physical(object) + offset, word];
  })();
  const before = image.load(at, bytes.length);
  image.store(at, bytes);
  return () => image.store(at, before);
}

function look(guest: Guest, threads: boolean): unknown {
  try {
    return guest.snapshot({ threads }).processes;
  } catch (error) {
    if (error instanceof DomschedError) return error.code;
    throw error;
  }
}

for (const kernel of SYNTHETIC_KERNELS) {
  test(`${kernel}: what a guest that was looked at before shows is what one shows that was not`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const known = [knownKernel(kernel)];
    // The second one's looks all come after a change of kind, at which everything is described anew.
    const [often, anew] = [
      await Guest.attach(synthetic.domain, known),
      await Guest.attach(synthetic.domain, known),
    ];
    const changes = fc.array(fc.tuple(change, fc.boolean(), fc.boolean()), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(changes, fc.boolean(), (steps, threads) => {
        const back: (() => void)[] = [];
        look(often, threads);
        try {
          for (const [step, isUndone, isLooked] of steps) {
            const undo = apply(synthetic, step);
            if (isLooked) look(often, threads);
            if (isUndone) undo();
            else back.unshift(undo);
            look(anew, !threads);
            if (!isDeepStrictEqual(look(often, threads), look(anew, threads))) return false;
          }
          return true;
        } finally {
          for (const undo of back) undo();
        }
      }),
      { numRuns: 60 },
    );
    t.pass('fast-check found no counterexample');
  });

  test(`${kernel}: a process that is as it was is the same object, and one that changed is not`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, [knownKernel(kernel)]);
    const before = guest.snapshot().processes;
    t.is(before.length, defaultTasks().length - 2);
    synthetic.put(synthetic.tasks.get(12)!, 'task_struct', 'static_prio', 125);
    const after = guest.snapshot({ unlisted: true }).processes;
    for (const [i, process] of after.entries()) t.is(process === before[i], process.pid !== 12, process.comm);
  });
}
