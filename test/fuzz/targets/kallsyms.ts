/** The symbol tables that a kernel carries for itself. */
import { findKallsyms } from '../../../extractor/kallsyms/kallsyms.ts';
import { BANNER } from '../../extractor/elf/build-elf.ts';
import { buildKallsyms, FORMATS, manySymbols } from '../../extractor/kallsyms/build-kallsyms.ts';

const ADDRESS = 0xffff_ffff_8200_0000n;
const HEAD = 256;

export function seeds(): Buffer[] {
  const head = Buffer.alloc(HEAD);
  head.write(`${BANNER}\n`, 'latin1');
  return Object.values(FORMATS).map((format) => {
    const symbols = manySymbols(1024, ADDRESS, format.encoding);
    return Buffer.concat([head, buildKallsyms(symbols, format, ADDRESS + BigInt(HEAD))]);
  });
}

export function read(bytes: Buffer): number | null {
  const at = (address: bigint, length: number) => {
    const offset = Number(address - ADDRESS);
    return offset >= 0 && offset + length <= bytes.length ? bytes.subarray(offset, offset + length) : null;
  };
  const table = findKallsyms(bytes, ADDRESS, at);
  if (table === null) return null;
  let count = 0;
  for (const { name } of table.all()) {
    if (name.length > 1024) throw new Error(`a name of ${name.length} characters`);
    count += 1;
  }
  if (count !== table.count) throw new Error(`${count} symbols, not ${table.count}`);
  return count;
}
