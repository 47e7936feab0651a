/**
 * A kernel that takes the place of another in the same memory: by `kexec` under a daemon that is attached to the first,
 * and as the crash kernel of one that panicked, beside which the dead one's memory stays as it was.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { requireKernel } from '../../kernels/cache.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { freePort } from '../runtime/free-port.ts';
import { DaemonProcess } from './daemon-process.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { guestBinary, makeInitramfs } from './initramfs.ts';
import { until } from './until.ts';

const KERNEL = 'debian-6.1-cloud';
const COMMAND_LINE = 'console=ttyS0 quiet panic=-1 oops=panic';
const RESERVED = 'crashkernel=192M';
const BOOT_LIMIT_MS = 240_000;

interface Row {
  readonly comm: string;
  readonly state: string;
}

/** Has the guest go over to another kernel, and waits until that is up. */
async function goOver(guest: LiveGuest, how: string): Promise<void> {
  const from = guest.console.lines.length;
  // The shell has to answer before it ends.
  await guest.run(`(sleep 0.5; ${how}) >/dev/console 2>&1 &`);
  await guest.console.waitFor(/GUEST READY/, BOOT_LIMIT_MS, from);
  guest.console.booted();
}

test('kexec under a daemon, and a crash kernel: the processes are those of the kernel that runs', async (t) => {
  t.timeout(900_000);
  const kernel = requireKernel(KERNEL);
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-kexec-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const at = (name: string) => path.join(directory, name);
  // Each kernel brings what the next one needs.
  const next = async (initrd: string) => ({
    'bin/kexec': await guestBinary('kexec'),
    vmlinuz: kernel.vmlinuz,
    initrd: at(initrd),
  });
  await makeInitramfs(at('third.cpio'), { programs: [{ kind: 'burner', name: 'third' }] });
  await makeInitramfs(at('second.cpio'), {
    programs: [{ kind: 'burner', name: 'second' }],
    files: await next('third.cpio'),
  });
  await using guest = await bootDebian({
    name: 'kexec',
    kernel: KERNEL,
    memory: 640,
    append: RESERVED,
    programs: [{ kind: 'burner', name: 'first' }],
    files: await next('second.cpio'),
  });

  await using daemon = new DaemonProcess(directory, [guest.connection]);
  await daemon.extract(kernel.vmlinux);
  const port = await freePort();
  await writeFile(at('token'), 'a-token-of-a-test-that-is-long-enough', { mode: 0o600 });
  await daemon.configure(`[http]\nlisten = "127.0.0.1:${port}"\ntokenFile = "${at('token')}"`);
  daemon.start();
  const names = async (...args: string[]) => {
    const rows = JSON.parse((await daemon.domsched('ps', '--json', ...args)).stdout) as Row[];
    return rows.map(({ comm }) => comm);
  };
  const lists = (name: string, ...args: string[]) =>
    until(
      `ps lists ${name}`,
      async (swallow) => {
        const seen = (await names(...args).catch(swallow)) ?? [];
        if (seen.length > 0) swallow(new Error(`it lists ${seen.join(' ')}`));
        return seen.includes(name);
      },
      BOOT_LIMIT_MS,
    );
  const health = async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/health`);
    return ((await answer.json()) as { status: string }).status;
  };
  await using control = await daemon.control();
  await until('it is attached', async () => (await control.status()).domains[0]?.attached);
  const held = await control.hold({ domain: 'kexec', process: 'first' });
  t.is(held.outcome, 'held');
  // Attached to by its process too, which has memory and no registers.
  await using host = await connect(`pid:${guest.process.pid}`);
  const [machine] = await host.list();
  await using domain = await host.open(machine!.identity.id);
  const known = await knownKernels([path.join(directory, 'domsched', 'layouts', 'registry.ts')]);
  const before = await Guest.attach(domain, known);
  await before.verifyRuns();
  await guest.run(`kexec load /vmlinuz /initrd '${COMMAND_LINE} ${RESERVED}'`);
  await goOver(guest, 'kexec run');
  await lists('second');
  t.false((await names()).includes('first'));
  t.is(await health(), 'healthy');
  await t.throwsAsync(before.verifyRuns(), { code: 'kernel-unidentified', message: /attach to it again/ });
  before.detach();
  const after = await Guest.attach(domain, known);
  t.true((await processesOf(after)).some(({ comm }) => comm === 'second'));
  after.detach();
  // Nobody is held any more: there is nothing to put back, and no record of it stays.
  t.is(await daemon.end('SIGTERM'), 0);
  t.deepEqual(daemon.remains(), { held: [], edits: [] });

  // On another CPU than the first, so that of the vCPUs the first is the dead kernel's.
  await guest.run(`kexec panic /vmlinuz /initrd '${COMMAND_LINE} nr_cpus=1'`);
  await goOver(guest, "taskset 2 sh -c 'echo c >/proc/sysrq-trigger'");
  // Its console speaks before its programs have their names.
  await lists('third', '--connect', guest.connection);
  const monitor = await guest.monitor();
  await monitor.execute('stop');
  const dump = path.join(guest.directory, 'dump');
  await monitor.execute('dump-guest-memory', { paging: false, protocol: `file:${dump}` }, BOOT_LIMIT_MS);
  await monitor.execute('cont');
  const halted = /1 of its CPUs have halted in a kernel that crashed/;
  for (const [place, note] of [
    [guest.connection, halted],
    [`dump:${dump}`, halted],
    // By its memory alone: which of the kernels is found first is chance, and so is what there is to say.
    [`pid:${guest.process.pid}`, /^$|its memory holds another kernel too, which stands still/],
  ] as const) {
    const { stdout, stderr } = await daemon.domsched('ps', '--json', '--connect', place);
    const comms = (JSON.parse(stdout) as Row[]).map(({ comm }) => comm);
    t.true(comms.includes('third'), place);
    t.false(comms.includes('second'), place);
    t.regex(stderr, note, place);
  }
  guest.checkConsole();
});
