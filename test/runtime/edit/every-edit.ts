/** What has to be so of every edit, whatever it is for. */
import type { ExecutionContext } from 'ava';
import type { Edit } from '../../../runtime/edit/edit.ts';
import { commit } from '../../../runtime/edit/transaction.ts';
import type { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import type { AddressSpace } from '../../../runtime/memory/types.ts';

/** A guest, and an edit of it that can be planned. */
export interface Editable {
  readonly domain: FakeDomain;
  readonly space: AddressSpace;
  readonly plan: () => Edit;
}

/**
 * With a fault at each memory operation in turn, the guest's image is bytewise what it was or what it is to be.
 * @param make the same guest each time
 */
export async function checkFaults(
  t: ExecutionContext,
  name: string,
  make: () => Promise<Editable>,
): Promise<void> {
  const done = await make();
  const old = done.domain.image.clone();
  done.domain.recorder.reset();
  await perform(done);
  const finished = done.domain.image.clone();
  t.not(old.differences(finished).length, 0, `${name} changes something`);
  const operations = done.domain.recorder.calls.length;
  let felt = 0;
  for (let n = 1; n <= operations; n++) {
    const guest = await make();
    guest.domain.recorder.reset();
    guest.domain.recorder.failNth(n, () => new Error(`injected at ${n}`));
    await perform(guest).catch(() => {
      felt += 1;
    });
    const { image } = guest.domain;
    const whole = image.differences(old).length === 0 || image.differences(finished).length === 0;
    t.true(whole, `${name}: between the two after a fault at operation ${n} of ${operations}`);
  }
  t.true(felt > 10, `${name}: only ${felt} faults were felt`);
}

/**
 * Without any one of its writes, an edit fails its own checks: as a plan on the copy, before it is written, and if the
 * guest's memory does not take a word, afterwards, and is undone.
 */
export async function checkOmissions(
  t: ExecutionContext,
  name: string,
  make: () => Promise<Editable>,
): Promise<void> {
  const { domain, space, plan } = await make();
  const before = domain.image.clone();
  const edit = plan();
  t.true(edit.writes.length > 0, name);
  for (const [index, left] of edit.writes.entries()) {
    const what = `${name} without ${left.what}`;
    await using guard = await domain.pause.acquire();
    const mutilated = { ...edit, writes: edit.writes.filter((write) => write !== left) };
    domain.recorder.reset();
    await t.throwsAsync(commit(domain, space, guard, mutilated), { code: 'guest-inconsistent' }, what);
    t.is(domain.recorder.count('write'), 0, what);
    await t.throwsAsync(commit(deafTo(domain, index), space, guard, edit), { code: 'edit-failed' }, what);
    t.deepEqual(domain.image.differences(before), [], what);
  }
}

/** The same domain, of whose memory one word does not take what is written first. */
function deafTo(domain: FakeDomain, index: number): FakeDomain {
  let isFirst = true;
  const write: FakeDomain['writeFrames']['write'] = (writes) => {
    domain.writeFrames.write(isFirst ? writes.filter((_, at) => at !== index) : writes);
    isFirst = false;
  };
  return Object.create(domain, { writeFrames: { value: { write } } });
}

async function perform({ domain, space, plan }: Editable): Promise<void> {
  await using guard = await domain.pause.acquire();
  await commit(domain, space, guard, plan());
}
