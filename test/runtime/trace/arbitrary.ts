import fc from 'fast-check';
import type { Tick } from '../../../runtime/tick/tick.ts';

/** Names as a guest, an operator or a bug could make them. */
export const hostileText = fc.oneof(
  fc.constantFrom(
    '<img src=x onerror=alert(1)>',
    '</title><script>alert(1)</script>',
    '"><svg onload=alert(1)>',
    '\u001b[2J\u001b]0;owned\u0007',
    '\u202egnp.exe',
    'a\nb\r\nc\0d',
    '__proto__',
    'constructor',
    '{{7*7}}`$&`',
    '',
    '\ud800',
    'x'.repeat(5000),
  ),
  fc.string({ unit: 'binary', maxLength: 30 }),
);

const oddNumber = fc.oneof(
  fc.constantFrom(0, -0, -1, 1e21, -1e21, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 5e-324),
  fc.double(),
  fc.nat(1e9),
);

const state = fc.constantFrom('running', 'ready', 'sleeping', 'held', 'stopped', 'ended');

/** @param text of names and reasons */
function process(text: fc.Arbitrary<string>, number: fc.Arbitrary<number>) {
  return fc.record(
    {
      key: fc.constantFrom('a', 'b', 'c', '__proto__', 'e f'),
      pid: number,
      ppid: number,
      comm: text,
      state,
      nice: number,
      kernelThread: fc.boolean(),
      cpuNs: number,
      ranNs: number,
      cpu: number,
      held: fc.record({
        policy: text,
        reason: text,
        since: fc.constantFrom('2026-01-01T00:00:00.000Z', 'no'),
      }),
      heldFor: text,
    },
    {
      requiredKeys: ['key', 'pid', 'ppid', 'comm', 'state', 'nice', 'kernelThread', 'cpuNs', 'ranNs', 'cpu'],
    },
  );
}

/** Reports with every field anything that its type allows. */
export function anyTicks(
  text: fc.Arbitrary<string> = hostileText,
  number: fc.Arbitrary<number> = oddNumber,
): fc.Arbitrary<Tick[]> {
  const domain = fc.record(
    {
      id: fc.constantFrom('1', '2', '__proto__'),
      name: text,
      hypervisor: text,
      kernel: text,
      vcpus: number,
      weight: number,
      cap: number,
      overstated: fc.constant(true as const),
      error: fc.record({ code: text, message: text }),
      processes: fc.uniqueArray(process(text, number), { selector: ({ key }) => key, maxLength: 5 }),
    },
    { requiredKeys: ['id', 'name', 'hypervisor', 'vcpus', 'processes'] },
  );
  const action = fc.record(
    {
      domain: fc.constantFrom('1', '2', '3'),
      action: fc.constantFrom('hold', 'release', 'nice', 'weight', 'cap'),
      key: fc.constant('a'),
      pid: number,
      comm: text,
      policy: text,
      reason: text,
      outcome: fc.constantFrom('done', 'refused', 'failed'),
      code: text,
      techniques: fc.array(text, { maxLength: 2 }),
      pausedUs: number,
    },
    { requiredKeys: ['domain', 'action', 'policy', 'reason', 'outcome', 'techniques', 'pausedUs'] },
  );
  const culprit = fc.record(
    {
      kind: fc.constantFrom('process', 'guest', 'machine', 'host', 'cap', 'other'),
      domain: text,
      comm: text,
    },
    { requiredKeys: ['kind'] },
  );
  const wait = fc.record({
    domain: text,
    comm: text,
    culprit,
    place: fc.constantFrom('guest', 'host'),
    ns: number,
  });
  // Of these all are ours, or were checked when they came.
  const counted = fc.nat(1e9);
  const heard = fc.record(
    {
      host: fc.constantFrom('a', 'b', '__proto__'),
      state: fc.constantFrom('active', 'at rest', 'silent'),
      heardMs: counted,
      revision: counted,
      classes: fc.array(fc.record({ domain: text, comm: text, share: counted, waits: fc.boolean() }), {
        maxLength: 2,
      }),
    },
    { requiredKeys: ['host', 'state', 'heardMs', 'classes'] },
  );
  const anyFleet = fc.record({
    name: text,
    connected: fc.boolean(),
    sinceMs: counted,
    listens: fc.boolean(),
    few: fc.boolean(),
    hosts: counted,
    silent: fc.array(text, { maxLength: 2 }),
    heard: fc.uniqueArray(heard, { selector: ({ host }) => host, maxLength: 3 }),
    sent: counted,
    received: counted,
    refused: fc.constantFrom({}, { 'too long': 1 }),
    policy: fc.record(
      {
        revision: counted,
        by: text,
        isCurrent: fc.boolean(),
        refused: fc.record({ revision: counted, why: text }),
      },
      { requiredKeys: ['isCurrent'] },
    ),
  });
  // Hosts that have fallen silent were heard before, so they are among all hosts.
  const fleet = anyFleet.map((facts) => ({ ...facts, hosts: facts.hosts + facts.silent.length }));
  const facts = {
    fleet,
    domains: fc.uniqueArray(domain, { selector: ({ id }) => id, maxLength: 3 }),
    actions: fc.array(action, { maxLength: 3 }),
    elapsedMs: fc.integer({ min: 0, max: 1000 }),
    tookMs: number,
    missed: fc.nat(3),
    early: fc.constant(true as const),
    sentinel: fc.record({ looks: number, ms: number }),
    waits: fc.array(wait, { maxLength: 3 }),
  };
  const tick = fc.record(facts, { requiredKeys: ['domains', 'actions', 'elapsedMs', 'tookMs', 'missed'] });
  return fc.array(tick, { minLength: 1, maxLength: 6 }).map((ticks) => {
    let ms = 0;
    return ticks.map((facts, i) => {
      ms += facts.elapsedMs;
      const time = new Date(1_767_323_045_000 + ms).toISOString();
      return { tick: i + 1, time, ms, ...facts } as Tick;
    });
  });
}

/** Numbers that JSON can hold and that come back as they are. */
export const plainNumber = fc.oneof(
  fc.nat(),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => n + 0),
);
