import { closeSync, openSync } from 'node:fs';
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
    t.is(reads.read(into(ours), cuts.length, remote, remotes), total);
    t.is(Buffer.compare(ours, theirs), 0, `round ${round}`);
  }
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
  t.is(memory.read(local, 1, remote, 3), 8);
  t.throws(() => memory.write(), { code: 'refused' });
});
