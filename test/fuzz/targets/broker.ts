/** What a reader that was taken over asks the broker for. */
import path from 'node:path';
import process from 'node:process';
import { Broker } from '../../../runtime/broker/broker.ts';
import { EditLog } from '../../../runtime/edit/log.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { hostProcess } from '../../../runtime/host-process.ts';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { JournalHealth } from '../../../runtime/journal-health.ts';
import { ChangeJournal, Journal } from '../../../runtime/surgeon/journal.ts';
import { HELD } from '../../runtime/surgeon/held-record.ts';
import { scratchFolder } from '../scratch-file.ts';

const FRAMES = 4;
const MOST_LINES = 64;
const OWN = hostProcess(process.pid)!;
/** The only machine has this process, by whatever number the input calls it. */
const PID = 7;
const ID = `pid:${PID}`;

const ANSWER_CODES = /^[a-z]+(-[a-z]+)*$/;

export function seeds(): Buffer[] {
  const opened = [
    { id: 1, op: 'open', host: 0, domain: ID },
    { id: 2, op: 'place', machine: 1, where: { blocks: [{ start: 4096, length: 4096 }], low: 4096 } },
    { id: 3, op: 'pause', machine: 1, use: 'edit' },
  ];
  const words = [{ frame: 1, offset: 8, old: '00000000', new: '11223344' }];
  const record = {
    ...HELD,
    connection: `pid:${PID}`,
    domain: `pid:${PID}`,
  };
  return [
    [...opened, { id: 4, op: 'edit', machine: 1, title: 'hold', words, still: [], harmlessInParts: true }],
    [
      ...opened,
      { id: 4, op: 'prove', machine: 1 },
      { id: 5, op: 'resume', machine: 1 },
      { id: 6, op: 'close', machine: 1 },
    ],
    [
      { id: 1, op: 'list', host: 0 },
      { id: 2, op: 'reserve' },
      { id: 3, op: 'probe' },
      { id: 4, op: 'state', machine: 1 },
    ],
    [
      { id: 1, op: 'record', journal: 'held', record },
      { id: 2, op: 'records', journal: 'held' },
      { id: 3, op: 'forget', journal: 'held', record },
    ],
  ].map((lines) => Buffer.from(lines.map((line) => JSON.stringify(line)).join('\n')));
}

/**
 * @returns how many lines were answered with a value
 * @throws Error if the broker failed, wrote beside an edit that it answered with success, or left the machine paused
 */
export async function read(bytes: Buffer): Promise<number | null> {
  const directory = scratchFolder();
  const health = new JournalHealth();
  const domain = new FakeDomain({ id: `pid:${PID}`, name: 'fuzz', ram: [{ first: 0, count: FRAMES }] });
  const machine = { pid: OWN.pid, started: OWN.started, name: 'fuzz', isQemu: true, kvmVcpus: 0, args: [] };
  const broker = new Broker(
    [
      {
        ids: () => [ID],
        list: async () => [],
        open: async (id) => {
          if (id !== ID) throw new DomschedError('domain-not-found', 'no such machine', {});
          const { pid, started } = OWN;
          return {
            identity: { id, connection: id, name: 'fuzz', hypervisor: 'qemu', pid, started },
            process: machine,
            descriptors: [],
            place: () => domain,
            close: async () => undefined,
          };
        },
        owns: ({ connection, domain: of }) => connection === of && /^pid:\d+$/.test(of),
      },
    ],
    {
      held: new Journal(path.join(directory, 'held'), health),
      changes: new ChangeJournal(path.join(directory, 'changed'), health),
      edits: new EditLog(path.join(directory, 'edits'), health),
      health,
    },
    () => {},
  );
  let good = 0;
  let refused: string | undefined;
  for (const line of bytes.toString('utf8').split('\n').slice(0, MOST_LINES)) {
    const before = domain.recorder.count('write');
    const answer = JSON.parse(await broker.answer(line));
    if ('value' in answer) good += 1;
    else {
      refused = answer.error.code as string;
      if (!ANSWER_CODES.test(refused) || /^the broker failed/.test(answer.error.message)) {
        throw new Error(`the broker failed: ${JSON.stringify(answer)}`);
      }
      if (domain.recorder.count('write') !== before) throw new Error(`refused, and written: ${line}`);
    }
  }
  await broker.close();
  if ((await domain.state()) !== 'running') throw new Error('the machine is left paused');
  if (good > 0) return good;
  if (refused !== undefined) throw new DomschedError('refused', 'all of it was refused', {});
  return null;
}
