import { closeSync, openSync, readSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import {
  descriptorChannel,
  receiveDescriptors,
  sendDescriptors,
} from '../../../runtime/broker/descriptors.ts';
import { scratch } from './bench.ts';

test('open files are handed over in order, as they were opened', async (t) => {
  const directory = await scratch(t);
  const [ours, its] = descriptorChannel();
  for (const name of ['a', 'b', 'c']) writeFileSync(path.join(directory, name), name);
  const open = (name: string) => openSync(path.join(directory, name), 'r');
  const sent = [[open('a')], [open('b'), open('c')]] as const;
  sendDescriptors(its, 1, sent[0]);
  sendDescriptors(its, 2, sent[1]);
  for (const fd of sent.flat()) closeSync(fd);
  const first = receiveDescriptors(ours, 1);
  const second = receiveDescriptors(ours, 2);
  t.deepEqual([first.number, second.number], [1, 2]);
  const bytes = Buffer.alloc(1);
  const read = [...first.descriptors, ...second.descriptors].map((fd) => {
    readSync(fd, bytes, 0, 1, 0);
    closeSync(fd);
    return bytes.toString('latin1');
  });
  t.deepEqual(read, ['a', 'b', 'c']);
  t.throws(() => receiveDescriptors(ours, 1), { message: /no files were handed over/ });
  for (const fd of [ours, its]) closeSync(fd);
});

test('who takes nothing of what is handed over keeps nobody waiting', (t) => {
  const [ours, its] = descriptorChannel();
  const file = openSync('/dev/null', 'r');
  t.throws(
    () => {
      for (let i = 0; i < 100_000; i++) sendDescriptors(its, i, [file]);
    },
    { message: /cannot be handed over: error 11/ },
  );
  for (const fd of [ours, its, file]) closeSync(fd);
});
