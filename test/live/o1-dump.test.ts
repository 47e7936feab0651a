/** `ps` on dumps of a live guest: what every format shows is what the paused guest shows. */
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { limeHeader } from '../runtime/hypervisor/dump-files.ts';
import { bootO1, buildO1, kernelFile } from './o1.ts';
import { domsched, TestLayouts } from './ps-layouts.ts';
import { until } from './until.ts';

/** The guest's RAM goes on at 4 GiB, as that of every machine with more than 3 GiB does. */
const LOW_BYTES = 32 << 20;
const HIGH_BYTES = 32 << 20;
const FOUR_GIB = 2 ** 32;

async function writeLime(memoryFile: string, target: string): Promise<void> {
  const memory = await readFile(memoryFile);
  const low = [limeHeader(0, LOW_BYTES), memory.subarray(0, LOW_BYTES)];
  const high = [limeHeader(FOUR_GIB, HIGH_BYTES), memory.subarray(LOW_BYTES)];
  await writeFile(target, [...low, ...high]);
}

test('ps of ELF, paging-mode ELF, raw and LiME dumps is that of the paused guest', async (t) => {
  t.timeout(900_000);
  await buildO1();
  await using layouts = await TestLayouts.of(kernelFile('base'));
  const folder = await mkdtemp(path.join(tmpdir(), 'o1-dump-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const at = (name: string) => path.join(folder, name);
  const machine = {
    memoryMiB: (LOW_BYTES + HIGH_BYTES) >> 20,
    commandLine: 'run=pi1:5,pi2,sleeper,pair',
  };
  const extraArguments = ['-machine', `max-ram-below-4g=${LOW_BYTES}`];
  await using guest = await bootO1({
    ...machine,
    extraArguments: [...extraArguments, '-qmp', `unix:${at('qmp.sock')},server=on,wait=off`],
  });
  for (const name of ['pi1', 'pi2', 'sleeper', 'pair']) await guest.waitFor(new RegExp(`^${name} `));
  const run = (connect: string, options = {}) => {
    const env = { XDG_DATA_HOME: layouts.dataHome };
    return domsched(['ps', '--json', '--connect', connect], { env, ...options });
  };
  const ps = async (connect: string) => {
    const { stdout } = await run(connect);
    return (JSON.parse(String(stdout)) as { domain: string; comm: string; state: string }[]).map(
      ({ domain: _, ...row }) => row,
    );
  };
  // Paused by us, so that everybody sees the same moment; the guest's kernel may be in the middle of a change in it.
  let live: Awaited<ReturnType<typeof ps>> | undefined;
  for (let tries = 0; live === undefined; tries++) {
    await guest.qmp('stop');
    live = await ps(`qemu:unix:${at('qmp.sock')}`).catch((error) => {
      if (tries === 10) throw error;
      return undefined;
    });
    if (live === undefined) await guest.qmp('cont');
  }
  t.true(live.some(({ comm }) => comm === 'pi1'));
  t.true(live.length >= 6);
  await guest.qmp('dump-guest-memory', { paging: false, protocol: `file:${at('elf')}` });
  await guest.qmp('dump-guest-memory', { paging: true, protocol: `file:${at('paging')}` });
  await copyFile(guest.memoryFile, at('raw'));
  await writeLime(guest.memoryFile, at('lime'));
  const kdump = { paging: false, format: 'kdump-zlib', protocol: `file:${at('kdump')}` };
  await guest.qmp('dump-guest-memory', kdump);
  for (const dump of ['elf', 'paging', 'kdump', 'lime', `raw,low=${LOW_BYTES}`]) {
    const rows = await ps(`dump:${at(dump)}`);
    // Without registers nobody knows which task a vCPU runs but its run queue, which says the same.
    t.deepEqual(rows, live, dump);
  }
  // A saved state is none of these; the message says how to make a dump of it, and that is done here to the letter.
  await guest.qmp('migrate', { uri: `exec:cat > ${at('saved')}` });
  await until(
    'the state is saved',
    async () => ((await guest.qmp('query-migrate')) as { status: string }).status === 'completed',
  );
  const { stderr } = await run(`dump:${at('saved')}`, { reject: false });
  const advice = /-S -incoming ('.*?'), and in its monitor give (dump-guest-memory \S+)/.exec(String(stderr));
  t.truthy(advice, String(stderr));
  const { stdout: incoming } = await execa('sh', ['-c', `printf %s ${advice![1]}`]);
  await execa('qemu-img', ['create', '-q', '-f', 'qcow2', at('disk'), '64M']);
  const disk = ['-drive', `if=none,file=${at('disk')},format=qcow2`];
  {
    await using other = await bootO1({
      ...machine,
      extraArguments: [...extraArguments, ...disk, '-S', '-incoming', incoming],
    });
    await until(
      'the state is loaded',
      async () => ((await other.qmp('query-status')) as { status: string }).status !== 'inmigrate',
    );
    await other.qmp('human-monitor-command', { 'command-line': advice![2] });
    await other.qmp('human-monitor-command', { 'command-line': 'savevm then' });
  }
  t.deepEqual(await ps(`dump:${at('saved.dump')}`), live);
  // Nor is an image with a snapshot in it.
  t.regex(
    String((await run(`dump:${at('disk')}`, { reject: false })).stderr),
    /start the machine from that with -loadvm; take a dump of the running guest: dump-guest-memory in the monitor/,
  );
  await using again = await bootO1({
    ...machine,
    extraArguments: [...extraArguments, ...disk, '-S', '-loadvm', 'then'],
  });
  await again.qmp('human-monitor-command', { 'command-line': `dump-guest-memory ${at('snapshot')}` });
  t.deepEqual(await ps(`dump:${at('snapshot')}`), live);
});
