import test from 'ava';
import fc from 'fast-check';
import type { Tick } from '../../../runtime/tick/tick.ts';
import { LineDecoder } from '../../../runtime/trace/decode.ts';
import { LineEncoder } from '../../../runtime/trace/encode.ts';
import type { TickLine } from '../../../runtime/trace/line.ts';
import { TICK_LINE } from '../../../runtime/trace/schema.ts';
import { backupStory, sampleDomain, sampleFleet, sampleProcess, sampleTick } from '../sample-ticks.ts';
import { anyTicks, hostileText, plainNumber } from './arbitrary.ts';

/** The order of processes and domains says nothing. */
function sorted(tick: Tick): Tick {
  const { fleet } = tick;
  const heard = fleet?.heard.toSorted((a, b) => (a.host < b.host ? -1 : 1));
  return {
    ...tick,
    ...(fleet && { fleet: { ...fleet, heard: heard! } }),
    domains: tick.domains
      .map((domain) => ({
        ...domain,
        processes: domain.processes.toSorted((a, b) => (a.key < b.key ? -1 : 1)),
      }))
      .sort((a, b) => (a.id < b.id ? -1 : 1)),
  };
}

const overTheWire = (line: TickLine): TickLine => JSON.parse(JSON.stringify(line));

test('lines read back are the ticks, whatever is in them and wherever one begins to read', (t) => {
  const ticks = anyTicks(hostileText, plainNumber);
  fc.assert(
    fc.property(ticks, fc.nat(5), (list, from) => {
      const encoder = new LineEncoder();
      const decoder = new LineDecoder();
      for (const [i, tick] of list.entries()) {
        if (i === from) encoder.reset();
        const line = overTheWire(encoder.encode(tick));
        t.is(TICK_LINE.safeParse(line).error, undefined);
        if (i >= from || from >= list.length) {
          t.deepEqual(sorted(decoder.decode(line)), sorted(JSON.parse(JSON.stringify(tick))));
        }
      }
    }),
  );
});

test('numbers that JSON has no word for do not spoil a line', (t) => {
  fc.assert(
    fc.property(anyTicks(), (list) => {
      const encoder = new LineEncoder();
      for (const tick of list) {
        t.is(TICK_LINE.safeParse(overTheWire(encoder.encode(tick))).error, undefined);
      }
    }),
  );
});

test('who sleeps on is not written again', (t) => {
  const encoder = new LineEncoder();
  const asleep = Array.from({ length: 50 }, (_, i) => sampleProcess({ pid: 100 + i }));
  const web = (ranNs: number) =>
    sampleDomain('web', [...asleep, sampleProcess({ pid: 7, ranNs, cpuNs: 1e9 + ranNs })]);
  encoder.encode(sampleTick(1, [web(0), sampleDomain('db', asleep)]));
  const line = encoder.encode(sampleTick(2, [web(5e8), sampleDomain('db', asleep)]));
  t.deepEqual(line.domains, [{ id: 'id-web', processes: [{ key: 'key-7', cpuNs: 1.5e9, ranNs: 5e8 }] }]);
  t.is(line.gone, undefined);
  const last = encoder.encode(sampleTick(3, [web(5e8)]));
  t.deepEqual(last.gone, ['id-db']);
});

test('a host of the fleet is written when it is heard again or changes, and once when it is gone', (t) => {
  const [encoder, decoder] = [new LineEncoder(), new LineDecoder()];
  const host = (name: string, heardMs: number) => ({
    host: name,
    state: 'active' as const,
    heardMs,
    classes: [],
  });
  const at = (tick: number, ...heard: ReturnType<typeof host>[]) => {
    const line = overTheWire(
      encoder.encode(sampleTick(tick, [], { fleet: sampleFleet({ heard, hosts: 2 }) })),
    );
    return { line: line.fleet!, seen: decoder.decode(line).fleet!.heard.map((one) => one.host) };
  };
  at(1, host('a', 1), host('b', 1));
  t.deepEqual(at(2, host('a', 1), host('b', 2)), { line: { heard: [host('b', 2)] }, seen: ['a', 'b'] });
  t.deepEqual(at(3, host('b', 2)), { line: { gone: ['a'] }, seen: ['b'] });
  t.is(at(4, host('b', 2)).line, undefined!);
  const none = overTheWire(encoder.encode(sampleTick(5, [])));
  t.is(none.fleet, null);
  t.false('fleet' in decoder.decode(none));
});

test('a guest that claims too much is written once, and once that it does so no longer; older traces say nothing of it', (t) => {
  const [encoder, decoder] = [new LineEncoder(), new LineDecoder()];
  const told = [undefined, true, true, undefined].map((overstated, i) => {
    const liar = sampleDomain('liar', [], overstated ? { overstated } : {});
    const line = overTheWire(encoder.encode(sampleTick(i + 1, [liar])));
    return [line.domains[0]?.overstated, decoder.decode(line).domains[0]!.overstated];
  });
  t.deepEqual(told, [
    [undefined, undefined],
    [true, true],
    [undefined, true],
    [null, undefined],
  ]);
  const [old] = TICK_LINE.parse({
    ...{ tick: 1, time: '2026-01-02T03:04:05.000Z', ms: 0, elapsedMs: 0, tookMs: 1, missed: 0, full: true },
    ...{ domains: [{ id: '1', name: 'db', hypervisor: 'qemu', vcpus: 1 }], actions: [] },
  }).domains;
  t.false('overstated' in old!);
});

test('a line that ends a hold says so', (t) => {
  const encoder = new LineEncoder();
  const lines = [...backupStory(40)].map((tick) => encoder.encode(tick));
  const holds = lines.flatMap((line) =>
    line.domains.flatMap(({ processes = [] }) => processes.filter(({ held }) => held !== undefined)),
  );
  t.deepEqual(
    holds.map(({ key, held }) => [key, held?.policy ?? null]),
    [
      ['key-200', 'idle-only'],
      ['key-200', null],
    ],
  );
});
