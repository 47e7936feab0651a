/** The pause that outlives us, in every hierarchy of control groups that this machine has a freezer in. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { DomschedError } from '../../../../runtime/error.ts';
import { hostProcess } from '../../../../runtime/host-process.ts';
import { tidy } from '../../../../runtime/hypervisor/qemu/pause-mark.ts';
import { stateOf } from '../../../../runtime/hypervisor/vmm/domain.ts';
import { Freezer } from '../../../../runtime/hypervisor/vmm/freezer.ts';
import { ProcessPause } from '../../../../runtime/hypervisor/vmm/process-pause.ts';
import { until } from '../../../live/until.ts';
import { busyProcess } from './busy-process.ts';
import { type TestGroup, testGroups } from './own-groups.ts';

const DIE = path.join(import.meta.dirname, 'stop-and-die.ts');
const place = mkdtempSync(path.join(tmpdir(), 'domsched-freezer-'));
process.env.DOMSCHED_RUNTIME_DIR = place;
test.after.always(() => rmSync(place, { recursive: true, force: true }));

/** CPU time of a process, in ticks. */
function spent(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

async function stands(pid: number): Promise<boolean> {
  const before = spent(pid);
  await sleep(250);
  return spent(pid) === before;
}

const goesOn = (pid: number, since = spent(pid)) => until('it goes on', () => spent(pid) > since);
const machine = (pid: number) =>
  ({ ...hostProcess(pid)!, name: 'busy', isQemu: false, kvmVcpus: 1, args: [] }) as const;
const marks = () =>
  readdirSync(path.join(place, 'pauses')).filter(
    (name) =>
      name.startsWith('frozen-') && readFileSync(path.join(place, 'pauses', name), 'utf8').trim() !== '{}',
  );

async function eachGroup(
  t: ExecutionContext,
  check: (group: TestGroup, child: ChildProcess & { pid: number }) => Promise<void>,
): Promise<void> {
  const groups = testGroups(t.title.replaceAll(/\W+/g, '-').slice(-40));
  t.true(groups.length > 0, 'run the tests as root, where control groups can be made');
  await using stack = new AsyncDisposableStack();
  for (const group of groups) stack.use(group);
  for (const group of groups) {
    const child = await busyProcess(t);
    group.add(child.pid);
    t.log(`version ${group.version}: ${group.directory}`);
    await check(group, child);
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
}

test.serial(
  'killed in the pause when it is frozen: it stands until somebody of us lets it go on',
  async (t) => {
    await eachGroup(t, async (_group, { pid }) => {
      const other = spawn(process.execPath, [DIE, String(pid), 'freeze'], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      t.teardown(() => other.kill('SIGKILL'));
      await once(other.stdout!, 'data');
      const freezer = Freezer.of(hostProcess(pid)!)!;
      t.is(freezer.by(), 'peer');
      await t.throwsAsync(new ProcessPause(machine(pid), freezer).stop(), {
        code: 'timeout',
        message: /another domsched/,
      });
      other.kill('SIGKILL');
      await once(other, 'exit');
      await until('its writer is dead', () => freezer.by() === 'dead');
      t.true(await stands(pid));
      t.is(stateOf(hostProcess(pid)!), 'paused');
      const pause = new ProcessPause(machine(pid), freezer);
      t.deepEqual(pause.standing(), { by: 'dead' });
      await pause.stop('look');
      pause.resume();
      t.true(await stands(pid), 'who only looks does not let it go on');
      t.is(freezer.by(), 'dead');
      await pause.stop();
      t.deepEqual(pause.prove(1), pause.prove(1));
      t.true(pause.isQuiet());
      t.true(await stands(pid), 'found, and not let go');
      pause.resume();
      await goesOn(pid);
      t.is(freezer.by(), 'nobody');
      t.is(pause.standing(), undefined);
      t.deepEqual(marks(), []);
      t.is(stateOf(hostProcess(pid)!), 'running');
    });
  },
);

test.serial('frozen for the words of an edit that may not be half done, and for no others', async (t) => {
  await eachGroup(t, async (_group, { pid }) => {
    const freezer = Freezer.of(hostProcess(pid)!)!;
    const pause = new ProcessPause(machine(pid), freezer);
    for (const inParts of [true, false]) {
      await pause.stop();
      const before = pause.prove(1);
      pause.keepOnDeath(true, inParts);
      t.is(freezer.by(), inParts ? 'nobody' : 'peer');
      t.true(pause.isQuiet(), 'its threads are ours all the same');
      t.deepEqual(pause.prove(1), before);
      pause.keepOnDeath(false, inParts);
      t.is(freezer.by(), 'nobody');
      t.true(pause.isQuiet());
      pause.resume();
      await goesOn(pid);
    }
    // On the way out of an error.
    await pause.stop();
    pause.keepOnDeath(true, false);
    pause.resume();
    await goesOn(pid);
    t.deepEqual(marks(), []);
  });
});

test.serial('given up for an operator: it stays frozen, and is nobody’s', async (t) => {
  await eachGroup(t, async (group, { pid }) => {
    const freezer = Freezer.of(hostProcess(pid)!)!;
    const pause = new ProcessPause(machine(pid), freezer);
    await pause.stop();
    pause.abandon();
    t.is(freezer.by(), 'others');
    t.true(await stands(pid));
    const error = await t.throwsAsync<DomschedError>(new ProcessPause(machine(pid), freezer).stop(), {
      code: 'refused',
    });
    const [, word, knob] = /echo (\S+) > (\S+)$/.exec(error!.message) ?? [];
    writeFileSync(knob!, word!);
    await goesOn(pid);
    t.is(freezer.by(), 'nobody');
    // An operator freezes it while we have it paused: that is not undone.
    await pause.stop();
    writeFileSync(knob!, group.version === 1 ? 'FROZEN' : '1');
    t.throws(() => pause.keepOnDeath(true, false), { code: 'refused', message: /somebody else/ });
    pause.resume();
    t.is(freezer.by(), 'others');
    t.true(await stands(pid));
    t.deepEqual(marks(), []);
    writeFileSync(knob!, word!);
    await goesOn(pid);
    // Somebody is moved in before it is frozen: he would stand still as well.
    const another = await busyProcess(t);
    group.add(another.pid);
    await pause.stop();
    t.throws(() => pause.keepOnDeath(true, false), { code: 'refused' });
    pause.resume();
    await goesOn(pid);
    await goesOn(another.pid);
    t.is(Freezer.of(hostProcess(pid)!), undefined, 'it is not alone');
    another.kill('SIGKILL');
    await once(another, 'exit');
  });
});

test.serial('marks of machines that are no more are tidied up', (t) => {
  mkdirSync(path.join(place, 'pauses'), { recursive: true, mode: 0o700 });
  const mark = path.join(place, 'pauses', 'frozen-1-1');
  writeFileSync(mark, '{}');
  tidy();
  t.false(existsSync(mark));
});
