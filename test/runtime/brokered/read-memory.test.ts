import { closeSync, openSync, readFileSync } from 'node:fs';
import test from 'ava';
import { ReadMemory } from '../../../runtime/brokered/read-memory.ts';
import { addressOf, ProcessMemory, RangeList } from '../../../runtime/hypervisor/process-memory.ts';
import { Dice } from '../../live/dice.ts';

const BYTES = 64 * 1024;
const ROUNDS = 200;

test('what is read by the file is what the system call copies, however ranges are cut', (t) => {
  const fd = openSync('/proc/self/mem', 'r');
  t.teardown(() => closeSync(fd));
  const from = new Uint8Array(new ArrayBuffer(BYTES)).map((_, i) => (i * 37) ^ (i >> 8));
  const [ours, theirs] = [new Uint8Array(new ArrayBuffer(BYTES)), new Uint8Array(new ArrayBuffer(BYTES))];
  const [reads, copies] = [new ReadMemory(fd, 'self'), new ProcessMemory()];
  const dice = new Dice(7);
  for (let round = 0; round < ROUNDS; round++) {
    const remote = new RangeList();
    let total = 0;
    const remotes = dice.below(20) + 1;
    for (let i = 0, at = 0; i < remotes; i++) {
      // Half of them follow the one before.
      if (dice.below(2) === 0) at = dice.below(BYTES - 4096);
      const length = Math.min(dice.below(300) + 1, BYTES - at);
      remote.set(i, addressOf(from) + at, length);
      at = (at + length) % (BYTES - 4096);
      total += length;
    }
    const cuts: number[] = [];
    for (let left = total; left > 0; left -= cuts.at(-1)!) cuts.push(Math.min(left, dice.below(500) + 1));
    const into = (bytes: Uint8Array) => {
      const local = new RangeList();
      let at = 0;
      for (const [i, length] of cuts.entries()) {
        local.set(i, addressOf(bytes) + at, length);
        at += length;
      }
      return local;
    };
    t.is(copies.read(into(theirs), cuts.length, remote, remotes), total);
    t.is(reads.read(into(ours), cuts.length, remote, remotes, ours), total);
    t.is(Buffer.compare(ours, theirs), 0, `round ${round}`);
  }
});

/** Read calls of this thread; that of the file itself is counted at its end. */
function readCalls(): number {
  return Number(/^syscr: (\d+)$/m.exec(readFileSync('/proc/thread-self/io', 'latin1'))![1]);
}

test('bytes that lie together are read by one call, wherever they go; what nobody reads is not copied', (t) => {
  const fd = openSync('/proc/self/mem', 'r');
  t.teardown(() => closeSync(fd));
  const from = new Uint8Array(new ArrayBuffer(8192)).map((_, i) => (i * 37) ^ (i >> 8));
  const bytes = new Uint8Array(new ArrayBuffer(4096));
  const elsewhere = new Uint8Array(new ArrayBuffer(4096));
  const [local, remote] = [new RangeList(), new RangeList()];
  local.set(0, addressOf(bytes) + 1000, 100);
  local.set(1, addressOf(elsewhere), 200);
  local.set(2, addressOf(bytes), 300);
  remote.set(0, addressOf(from) + 50, 400);
  // It follows the one before.
  remote.set(1, addressOf(from) + 450, 200);
  const memory = new ReadMemory(fd, 'self');
  readCalls();
  const before = readCalls();
  const own = readCalls() - before;
  const start = readCalls();
  t.is(memory.read(local, 3, remote, 2, bytes), 600);
  t.is(readCalls() - start - own, 1);
  t.is(Buffer.compare(bytes.subarray(1000, 1100), from.subarray(50, 150)), 0);
  t.is(Buffer.compare(bytes.subarray(0, 300), from.subarray(350, 650)), 0);
  t.is(Buffer.compare(elsewhere, new Uint8Array(4096)), 0);
});

test('more bytes than one call distributes go where they belong', (t) => {
  const fd = openSync('/proc/self/mem', 'r');
  t.teardown(() => closeSync(fd));
  const length = 300 * 1024;
  const from = new Uint8Array(new ArrayBuffer(length)).map((_, i) => (i * 37) ^ (i >> 8));
  const bytes = new Uint8Array(new ArrayBuffer(length));
  const cuts = [100_000, 1000, 1000, 70_000, 5000];
  const rest = length - cuts.reduce((sum, each) => sum + each, 0);
  const [local, remote] = [new RangeList(), new RangeList()];
  let at = 0;
  for (const [i, cut] of [...cuts, rest].entries()) {
    local.set(i, addressOf(bytes) + at, cut);
    at += cut;
  }
  remote.set(0, addressOf(from), length);
  t.is(new ReadMemory(fd, 'self').read(local, cuts.length + 1, remote, 1, bytes), length);
  t.is(Buffer.compare(bytes, from), 0);
});

test('memory that is not there ends the copy before it, and nothing is ever written', (t) => {
  const fd = openSync('/proc/self/mem', 'r');
  t.teardown(() => closeSync(fd));
  const bytes = new Uint8Array(new ArrayBuffer(8192));
  const [local, remote] = [new RangeList(), new RangeList()];
  local.set(0, addressOf(bytes), 24);
  remote.set(0, addressOf(bytes) + 4096, 8);
  remote.set(1, 4096, 8);
  remote.set(2, addressOf(bytes) + 4096, 8);
  const memory = new ReadMemory(fd, 'self');
  t.is(memory.read(local, 1, remote, 3, bytes), 8);
  t.throws(() => memory.write(), { code: 'refused' });
});
