/** A reader's machine over a broker's, both in this process. */
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import { BrokeredDomain } from '../../../runtime/brokered/domain.ts';
import { errorOf } from '../../../runtime/brokered/failure.ts';
import { BrokeredHost } from '../../../runtime/brokered/host.ts';
import { readOnlyShare } from '../../../runtime/brokered/read-only-share.ts';
import { DomschedError } from '../../../runtime/error.ts';
import type { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { shareOf } from '../../../runtime/hypervisor/share.ts';
import type { DomainScheduler, StandingPause } from '../../../runtime/hypervisor/types.ts';
import { askerOf, brokerOver, journalsIn, machineProcess, scratch } from '../broker/bench.ts';

type AskedBroker = ConstructorParameters<typeof BrokeredDomain>[0];
type Opened = ConstructorParameters<typeof BrokeredDomain>[2];
type Ask = (request: object) => Promise<{ value?: unknown; error?: Parameters<typeof errorOf>[0] }>;

function clientOf(ask: Ask): AskedBroker {
  return {
    ask: async (request: object) => {
      const { value, error } = await ask(request);
      if (error !== undefined) throw errorOf(error);
      return value;
    },
  } as unknown as AskedBroker;
}

async function brokered(t: ExecutionContext, change: (domain: FakeDomain) => void) {
  const { ask, domain } = brokerOver(await scratch(t));
  change(domain);
  const client = clientOf(ask as Ask);
  const { machine, identity } = await client.ask({ op: 'open', host: 0, domain: `pid:${process.pid}` });
  const where = { blocks: [{ start: 4096, length: 4096 }], low: 4096 };
  const placed = await client.ask({ op: 'place', machine, where });
  const nothing = { renew: () => false, close: () => undefined };
  const opened = { machine, ram: nothing, view: nothing } as unknown as Opened;
  const reader = new BrokeredDomain(client, identity, opened, placed);
  t.teardown(() => reader.close());
  return { reader, ask };
}

test('whether a machine stands by a pause that nobody ends is what the broker sees at that moment', async (t) => {
  const stands: StandingPause = { by: 'stopped', pid: 42, since: 1_700_000_000_000, edit: true };
  let now: StandingPause | undefined;
  const { reader } = await brokered(t, (domain) => Object.assign(domain, { standing: () => now }));
  t.is(await reader.standing(), undefined);
  now = stands;
  t.deepEqual(await reader.standing(), stands);
  now = undefined;
  t.is(await reader.standing(), undefined);
});

test('a machine that has ended does not stand; another failure is told', async (t) => {
  let code: 'domain-gone' | 'timeout' = 'domain-gone';
  const fails = () => {
    throw new DomschedError(code, 'no', {});
  };
  const { reader } = await brokered(t, (domain) => Object.assign(domain, { standing: fails }));
  t.is(await reader.standing(), undefined);
  code = 'timeout';
  await t.throwsAsync(reader.standing(), { code: 'timeout' });
});

test('why a machine cannot be edited as it was started is known to the reader', async (t) => {
  const refusal = new DomschedError('refused', 'its threads have no names', { pid: 1 });
  const { reader } = await brokered(t, (domain) => Object.assign(domain, { editRefusal: () => refusal }));
  t.like(reader.editRefusal(), { code: 'refused', message: refusal.message, details: { pid: 1 } });
  t.is((await brokered(t, () => undefined)).reader.editRefusal(), undefined);
});

test('a machine that could not be asked is listed with who keeps it standing', async (t) => {
  const standing: StandingPause = { by: 'stopped', pid: 42 };
  const { started, name, pid } = machineProcess;
  const identity = { id: 'x', name, connection: 'x', hypervisor: 'qemu', pid, started } as const;
  const error = new DomschedError('timeout', 'QEMU does not answer', {});
  const machines = {
    ids: () => ['x'],
    list: async () => [
      { identity, error, standing },
      { identity, error },
    ],
    open: async () => {
      throw error;
    },
    owns: () => false,
  };
  const { ask } = askerOf([machines], journalsIn(await scratch(t)));
  const listed = await new BrokeredHost(clientOf(ask as Ask), 'qemu:').list();
  t.like(listed, [
    { identity, standing, error: { code: 'timeout' } },
    { identity, error: { code: 'timeout' } },
  ]);
  t.false('standing' in listed[1]!);
});

test('a share is read by the reader, and set by nobody', async (t) => {
  const set: unknown[] = [];
  const scheduler: DomainScheduler = {
    name: 'cgroup',
    get: async () => ({ weight: 256, cap: 50 }),
    cappedNs: () => 7,
    set: async (share) => {
      set.push(share);
      return { weight: 1, cap: 1 };
    },
  };
  const { reader } = await brokered(t, () => undefined);
  const read = readOnlyShare(scheduler);
  Object.assign(reader, { scheduler: read });
  t.is(read.cappedNs!(), 7);
  t.like(await shareOf(reader, {}), { domain: 'one', weight: 256, cap: 50 });
  await t.throwsAsync(shareOf(reader, { cap: 1 }), { code: 'refused', message: /cpu\.max/ });
  t.deepEqual(set, []);
});
