/**
 * A guest that goes to another host while somebody in it is held: there no record tells of it. What is held is found in
 * the guest itself and let go, and where it came from nobody says that all is well. Each "host" is a journal of its own.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { ExecaError } from 'execa';
import { asRecord } from '../../runtime/hypervisor/qemu/qmp-client.ts';
import { parseRegisters } from '../../runtime/hypervisor/qemu/registers.ts';
import { DaemonProcess } from './daemon-process.ts';
import { bootO1, kernelFile, numbers, type O1Guest } from './o1.ts';
import { until } from './until.ts';

const NAMES = ['pi1', 'pi2', 'pi3'];
const HELD = 'pi1';
const commandLine = `report=100 run=${NAMES.join(',')}`;

/** What each program said last. */
function last(guest: O1Guest, what: 'progress' | 'errors'): number[] {
  return NAMES.map((name) => {
    const line = guest.lines.findLast((text) => text.startsWith(`${name} `));
    return line === undefined ? -1 : numbers(line)[what]!;
  });
}

const progress = (guest: O1Guest) => last(guest, 'progress');

/** By what each program says itself. */
async function goOn(guest: O1Guest, names: readonly string[]): Promise<void> {
  const of = () => progress(guest).filter((_, i) => names.includes(NAMES[i]!));
  // One that was held has said nothing yet here, and on a busy host says nothing for a while.
  await until(`${names} are heard`, () => of().every((count) => count >= 0));
  const before = of();
  await until(`${names} go on`, () => of().every((count, i) => count > before[i]!));
}

/**
 * Stops it where none of its CPUs is in the kernel: what QEMU's translator loses of a running CPU when it migrates it is
 * one wrong result of a program, but may be the end of a kernel.
 */
async function stopInPrograms(guest: O1Guest): Promise<void> {
  await until('none of its CPUs is in the kernel', async () => {
    await guest.qmp('stop');
    const text = await guest.qmp('human-monitor-command', { 'command-line': 'info registers -a' });
    if (parseRegisters(String(text)).every(({ cpl }) => cpl === 3)) return true;
    await guest.qmp('cont');
    return false;
  });
}

test.serial(
  'held on one host, migrated to another: found there and let go, with no record of it',
  async (t) => {
    t.timeout(300_000);
    await using stack = new AsyncDisposableStack();
    const directory = mkdtempSync(path.join(tmpdir(), 'domsched-migration-'));
    stack.defer(() => rmSync(directory, { recursive: true, force: true }));
    const stream = path.join(directory, 'stream');
    const host = async (name: string, extra: readonly string[] = []) => {
      const own = mkdtempSync(path.join(directory, name));
      const socket = path.join(own, 'qmp');
      const extraArguments = ['-qmp', `unix:${socket},server=on,wait=off`, ...extra];
      const guest = stack.use(await bootO1({ name: 'traveller', commandLine, extraArguments }));
      const commands = stack.use(new DaemonProcess(own, [`qemu:unix:${socket}`]));
      await commands.extract(kernelFile('base'));
      return [guest, commands] as const;
    };
    const [source, here] = await host('here');
    await until('all of them run', () => progress(source).every((count) => count >= 0));
    const connect = ['--connect', here.connections[0]!];
    await here.domsched('hold', 'traveller', HELD, ...connect);
    await goOn(source, NAMES.slice(1));
    const at = progress(source)[0]!;

    await stopInPrograms(source);
    await source.qmp('migrate', { uri: `exec:cat > ${stream}.part && mv ${stream}.part ${stream}` });
    await until(
      'it has left',
      async () => asRecord(await source.qmp('query-migrate'))?.status === 'completed',
    );
    await until('all of it was sent', () => existsSync(stream));
    t.is(progress(source)[0], at, 'held until it left');
    const left = await t.throwsAsync<ExecaError>(here.domsched('release', '--all', ...connect), {
      instanceOf: ExecaError,
    });
    t.is(left?.exitCode, 1, 'he is held, wherever the guest is now');
    t.regex(
      String(left?.stderr),
      /pi1.* was held there: if it was migrated .* run domsched release --all where it runs/,
    );

    const [target, there] = await host('there', ['-incoming', `exec:cat ${stream}`]);
    await until(
      'it has arrived, and stands',
      async () => asRecord(await target.qmp('query-status'))?.status === 'paused',
    );
    await target.qmp('cont');
    await until('the others go on there', () => {
      const [, ...others] = progress(target);
      return others.every((count) => count >= 0);
    });
    t.is(progress(target)[0], -1, 'he does not');
    const before = last(target, 'errors');
    const { stdout, stderr } = await there.domsched('release', '--all', '--connect', there.connections[0]!);
    t.regex(stderr, /pi1\) is held, and no record tells by whom: letting it go/);
    t.regex(stdout, /pi1\) released by (splice|state)/, stdout);
    await goOn(target, NAMES);
    t.regex(await there.letAllGo(), /nothing is held/);
    t.deepEqual(there.remains(), { held: [], edits: [] });
    // QEMU's translator itself loses now and then what a running program had in registers when it was migrated (1 of 12
    // times here, with nothing of ours near it; 1 guest of 30 did not go on at all). So on the way there each may have computed wrongly once, and none since.
    const wrong = last(target, 'errors');
    t.deepEqual(wrong.slice(1), before.slice(1), 'nothing is computed wrongly since the release');
    t.true(wrong[0] === 0, 'he was held, and had nothing in registers');
    t.true(
      wrong.every((count) => count <= 1),
      JSON.stringify(wrong),
    );
    const trouble = [
      ...source.lines.filter((line) => /BUG|exception|errors=[1-9]/.test(line)),
      ...target.lines.filter((line) => /BUG|exception/.test(line)),
    ];
    t.deepEqual(trouble, []);
  },
);
