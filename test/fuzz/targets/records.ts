/** Files that another one of us left: who is held, what was changed, an edit that was under way. */
import path from 'node:path';
import { EditLog, recover } from '../../../runtime/edit/log.ts';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { ChangeJournal, Journal } from '../../../runtime/surgeon/journal.ts';
import { HELD } from '../../runtime/surgeon/held-record.ts';
import { scratchFile } from '../scratch-file.ts';

const FRAMES = 4;

export function seeds(): Buffer[] {
  const held = HELD;
  const writer = { pid: 4_000_000, started: 1 };
  const edit = {
    domain: 'fuzz',
    title: 'hold',
    writer,
    writes: [{ frame: 1, offset: 8, old: '00000000', new: 'ff000000' }],
    still: [{ frame: 2, offset: 0, bytes: '00' }],
  };
  return [
    `h${JSON.stringify(held)}`,
    `c${JSON.stringify({ ...held, kind: 'nice', before: 0, set: 5 })}`,
    `e${JSON.stringify(edit)}`,
  ].map((record) => Buffer.from(record));
}

/** The first byte says of which kind the record is. */
export async function read(bytes: Buffer): Promise<void> {
  const kind = String.fromCharCode(bytes[0] ?? 0);
  const directory = path.dirname(
    scratchFile(`${kind === 'h' || kind === 'c' ? kind : 'e'}/a.json`, bytes.subarray(1)),
  );
  if (kind === 'h') await new Journal(directory).list();
  else if (kind === 'c') await new ChangeJournal(directory).list();
  else {
    const domain = new FakeDomain({ id: 'fuzz', name: 'fuzz', ram: [{ first: 0, count: FRAMES }] });
    await using _guard = await domain.pause.acquire();
    await recover(domain, new EditLog(directory));
  }
}
