/** `ps` on dumps of a live guest: what every format shows is what the paused guest shows. */
import { copyFile, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { bootO1, buildO1, kernelFile } from './o1.ts';
import { domsched, TestLayouts } from './ps-layouts.ts';

/** LiME's own header of one range (lime.h): magic "EMiL", version 1, first and last byte, eight bytes for later. */
async function writeLime(memoryFile: string, size: number, target: string): Promise<void> {
  const header = Buffer.alloc(32);
  header.write('EMiL', 0, 'latin1');
  header.writeUInt32LE(1, 4);
  header.writeBigUInt64LE(0n, 8);
  header.writeBigUInt64LE(BigInt(size) - 1n, 16);
  await using from = await open(memoryFile);
  await using to = await open(target, 'wx');
  await to.write(header);
  const piece = Buffer.alloc(1 << 20);
  for (let at = 0; at < size; at += piece.length) {
    await from.read(piece, 0, piece.length, at);
    await to.write(piece);
  }
}

test('ps of ELF, raw and LiME dumps is that of the paused guest', async (t) => {
  t.timeout(900_000);
  await buildO1();
  await using layouts = await TestLayouts.of(kernelFile('base'));
  const folder = await mkdtemp(path.join(tmpdir(), 'o1-dump-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const at = (name: string) => path.join(folder, name);
  const memoryMiB = 64;
  await using guest = await bootO1({
    memoryMiB,
    commandLine: 'run=pi1:5,pi2,sleeper,pair',
    extraArguments: ['-qmp', `unix:${at('qmp.sock')},server=on,wait=off`],
  });
  for (const name of ['pi1', 'pi2', 'sleeper', 'pair']) await guest.waitFor(new RegExp(`^${name} `));
  const ps = async (connect: string) => {
    const env = { XDG_DATA_HOME: layouts.dataHome };
    const { stdout } = await domsched(['ps', '--json', '--connect', connect], { env });
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
  await copyFile(guest.memoryFile, at('raw'));
  await writeLime(guest.memoryFile, memoryMiB << 20, at('lime'));
  for (const format of ['elf', 'raw', 'lime']) {
    const rows = await ps(`dump:${at(format)}`);
    // Without registers nobody knows which task a vCPU runs but its run queue, which says the same.
    t.deepEqual(rows, live, format);
  }
});
