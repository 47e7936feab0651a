/** Constants are proved on a guest's memory: code in its text, and tables of jumps among its data. */
import test from 'ava';
import { Guest } from '../../../runtime/guest/guest.ts';
import { constantsOf } from '../../../runtime/surgeon/proved-constants.ts';
import { EEVDF_KERNEL, knownKernel, SyntheticGuest } from '../guest/synthetic.ts';

const little = (value: bigint, size: number) =>
  Array.from({ length: size }, (_, index) => Number((value >> BigInt(8 * index)) & 0xffn));

/** What is found of a function with two cases: one sets PF_EXITING, the other does nothing. */
async function proved(tableAt: (synthetic: SyntheticGuest) => bigint): Promise<bigint | null> {
  const synthetic = await SyntheticGuest.make({ kernel: EEVDF_KERNEL });
  const write = (address: bigint, bytes: readonly number[]) =>
    synthetic.image.store(synthetic.physical(address), Uint8Array.from(bytes));
  const entry = synthetic.symbol('exit_signals');
  const table = tableAt(synthetic);
  // jmp *table(,%rdi,8); ret; orl $4,flags(%rax); ret
  const flags = little(synthetic.offset('task_struct', 'flags'), 4);
  write(entry, [0xff, 0x24, 0xfd, ...little(table, 4), 0xc3, 0x81, 0x88, ...flags, 4, 0, 0, 0, 0xc3]);
  write(table, [...little(entry + 7n, 8), ...little(entry + 8n, 8)]);
  const guest = await Guest.attach(synthetic.domain, [knownKernel(EEVDF_KERNEL)]);
  return constantsOf(guest).proofs.find(({ name }) => name === 'PF_EXITING')!.value;
}

test('a table of jumps is behind the text, and in the image', async (t) => {
  t.is(await proved((synthetic) => synthetic.symbol('_etext') + 0x1000n), 4n);
  t.is(await proved((synthetic) => synthetic.symbol('_end') + 0x1000n), null);
});
