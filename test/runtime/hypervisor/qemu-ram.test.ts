import { link, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import koffi from 'koffi';
import { FRAME_SIZE, guestFrame } from '../../../runtime/hypervisor/frame.ts';
import { FileMapping } from '../../../runtime/hypervisor/process-memory.ts';
import { filePlace, mappingsOf, processMaps } from '../../../runtime/hypervisor/qemu/process-maps.ts';
import { FakeQemu, memoryMap } from './fake-qemu.ts';

const PAGE = FRAME_SIZE;
const MAP_SHARED = 1;
const libc = koffi.load('libc.so.6');
const open = libc.func('int open(const char *path, int flags)');
const mmap = libc.func(
  'void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
);

const bytes = Buffer.from('written by us');
const write = { frame: guestFrame(3), offset: 8, bytes };

async function scratch(t: { teardown(end: () => Promise<void>): void }): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-memory-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

test('memory is what QEMU has mapped, whatever it says its file is called', async (t) => {
  const victim = path.join(await scratch(t), 'victim');
  await writeFile(victim, Buffer.alloc(1024 * 1024, 'v'));
  await using qemu = await FakeQemu.start();
  qemu.memory.memPath = victim;
  await using domain = await qemu.attach();
  domain.writeFrames.write([write]);
  t.deepEqual((await readFile(qemu.file)).subarray(3 * PAGE + 8, 3 * PAGE + 8 + bytes.length), bytes);
  t.true((await readFile(victim)).every((byte) => byte === 'v'.charCodeAt(0)));
});

test('a file that QEMU may only read is not written, under none of its names', async (t) => {
  const victim = path.join(await scratch(t), 'victim');
  await writeFile(victim, Buffer.alloc(1024 * 1024, 'v'));
  await using qemu = await FakeQemu.start();
  const place = mmap(null, 1024 * 1024, 1, MAP_SHARED, open(victim, 0), 0) as bigint;
  qemu.memory = { address: Number(BigInt.asUintN(64, place)), memPath: victim };
  await t.throwsAsync(qemu.attach(), { code: 'protocol', message: /no memory of its own/ });
  t.true((await readFile(victim)).every((byte) => byte === 'v'.charCodeAt(0)));
});

test('the file was replaced by another one under its name: the one that is mapped is written', async (t) => {
  await using qemu = await FakeQemu.start();
  const kept = path.join(await scratch(t), 'kept');
  await link(qemu.file, kept);
  await writeFile(`${qemu.file}.new`, Buffer.alloc(1024 * 1024));
  await rename(`${qemu.file}.new`, qemu.file);
  await using domain = await qemu.attach();
  domain.writeFrames.write([write]);
  t.deepEqual((await readFile(kept)).subarray(3 * PAGE + 8, 3 * PAGE + 8 + bytes.length), bytes);
  t.true((await readFile(qemu.file)).every((byte) => byte === 0));
});

test('what is not in the process, or in two places at once, is refused', async (t) => {
  const lies: Record<string, (qemu: FakeQemu) => void> = {
    'beyond the end of its mapping': (qemu) =>
      (qemu.memory.mtree = memoryMap([0, 1024 * 1024 * 1024 * 1024])),
    nowhere: (qemu) => (qemu.memory.address = 0x1000),
    'twice the same address': (qemu) => {
      qemu.memory.mtree = memoryMap([0, 2 * PAGE], [4 * PAGE, 6 * PAGE]);
      qemu.memory.constant = true;
    },
    'pieces that overlap': (qemu) => (qemu.memory.mtree = memoryMap([0, 4 * PAGE], [2 * PAGE, 6 * PAGE])),
  };
  for (const [what, lie] of Object.entries(lies)) {
    await using qemu = await FakeQemu.start();
    lie(qemu);
    await t.throwsAsync(qemu.attach(), { code: 'protocol' }, what);
  }
});

test("mappings are the kernel's: neighbours are one, gaps are none, a file is whole or no file", (t) => {
  const line = {
    readable: true,
    writable: true,
    executable: false,
    shared: true,
    major: 0,
    minor: 1,
    inode: 7,
  };
  const maps = [
    { ...line, start: 0x1000, end: 0x3000, offset: 0x8000 },
    { ...line, start: 0x3000, end: 0x4000, offset: 0xa000 },
    { ...line, start: 0x5000, end: 0x6000, offset: 0xb000 },
    { ...line, start: 0x6000, end: 0x7000, offset: 0xc000, minor: 2 },
  ];
  t.deepEqual(mappingsOf(maps, 0x2000, 0x2000), maps.slice(0, 2));
  t.deepEqual(filePlace(mappingsOf(maps, 0x2000, 0x2000)!, 0x2000), { map: maps[0]!, offset: 0x9000 });
  t.is(mappingsOf(maps, 0x3000, 0x3000), undefined, 'a gap');
  t.is(mappingsOf(maps, 0x6000, 0x2000), undefined, 'past the end');
  t.is(filePlace(mappingsOf(maps, 0x5000, 0x2000)!, 0x5000), undefined, 'another device');
  t.is(filePlace([{ ...maps[0]!, shared: false }], 0x1000), undefined);
  t.is(filePlace([{ ...maps[0]!, writable: false }], 0x1000), undefined);
  t.is(filePlace([{ ...maps[0]!, inode: 0 }], 0x1000), undefined);
});

test('our own mapping is found among those of our process, with its device as stat has it', async (t) => {
  const file = path.join(await scratch(t), 'memory');
  await writeFile(file, Buffer.alloc(4 * PAGE));
  const mapping = new FileMapping(file);
  const [map] = mappingsOf(processMaps(process.pid), mapping.address, 4 * PAGE)!;
  t.like(map, { inode: mapping.inode, shared: true, writable: true, offset: 0 });
  const again = new FileMapping(`/proc/self/map_files/${map!.start.toString(16)}-${map!.end.toString(16)}`);
  t.deepEqual([again.device, again.inode], [mapping.device, mapping.inode]);
  again.close();
  mapping.close();
  t.throws(() => new FileMapping('/dev/null'), { code: 'host-unreachable', message: /not a regular file/ });
});
