import { openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { Broker, type BrokerJournals } from '../../../runtime/broker/broker.ts';
import type { Machines } from '../../../runtime/broker/machines.ts';
import { EditLog } from '../../../runtime/edit/log.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { hostProcess } from '../../../runtime/host-process.ts';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { JournalHealth } from '../../../runtime/journal-health.ts';
import { ChangeJournal, Journal } from '../../../runtime/surgeon/journal.ts';

export const FRAMES = 4;

/** The process of the only machine: this one, which runs as long as the test. */
export const machineProcess = {
  ...hostProcess(process.pid)!,
  name: 'one',
  isQemu: true,
  kvmVcpus: 0,
  args: [],
};

/** A broker over a machine that exists in memory alone. */
export function brokerOver(directory: string, now?: () => number) {
  const domain = new FakeDomain({
    id: `pid:${process.pid}`,
    name: 'one',
    ram: [{ first: 0, count: FRAMES }],
  });
  const id = `pid:${process.pid}`;
  const { pid, started } = machineProcess;
  const machines: Machines = {
    ids: () => [id],
    list: async () => [],
    open: async (asked) => {
      if (asked !== id) throw new DomschedError('domain-not-found', 'no such machine', {});
      return {
        identity: { id, connection: id, name: 'one', hypervisor: 'qemu', pid, started },
        process: machineProcess,
        descriptors: [openSync('/dev/null', 'r')],
        place: () => domain,
        close: async () => undefined,
      };
    },
    owns: (record) => record.domain === record.connection && /^pid:\d+$/.test(record.domain),
  };
  const handed: number[] = [];
  const journals = journalsIn(directory);
  const { broker, ask } = askerOf([machines], journals, now, (machine) => handed.push(machine));
  /** Opens and places the machine, of which nothing is recorded so far. */
  const open = async () => {
    await ask({ op: 'open', host: 0, domain: id });
    await ask({ op: 'place', machine: 1, where: { blocks: [{ start: 4096, length: 4096 }], low: 4096 } });
    domain.recorder.reset();
  };
  return { broker, domain, journals, handed, ask, open };
}

export function journalsIn(directory: string): BrokerJournals {
  const health = new JournalHealth();
  return {
    held: new Journal(path.join(directory, 'held'), health),
    changes: new ChangeJournal(path.join(directory, 'changed'), health),
    edits: new EditLog(path.join(directory, 'edits'), health),
    health,
  };
}

/** What a broker answered. */
export interface BrokerAnswer {
  readonly value?: unknown;
  readonly error?: { code: string; message: string; details: Record<string, unknown> };
}

/** A broker, and a reader that asks it. */
export function askerOf(
  places: readonly Machines[],
  journals: BrokerJournals,
  now?: () => number,
  hand: (machine: number) => void = () => undefined,
) {
  const broker = new Broker(places, journals, hand, now);
  let last = 0;
  const ask = async (request: object): Promise<BrokerAnswer> => {
    last += 1;
    const id = last;
    const answer = JSON.parse(await broker.answer(JSON.stringify({ id, ...request })));
    if (answer.id !== id) throw new Error(`answer ${answer.id} to request ${id}`);
    return answer;
  };
  return { broker, ask };
}

export async function scratch(t: { teardown(end: () => Promise<void>): void }): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-broker-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}
