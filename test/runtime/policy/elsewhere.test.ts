/** Activity of other hosts, as policies see it. */
import test from 'ava';
import { type HeardHost, remoteDomains } from '../../../runtime/fleet/leases.ts';
import { combine, type PlacedPolicy } from '../../../runtime/policy/combine.ts';
import { fairShare } from '../../../runtime/policy/fair-share.ts';
import { idleOnly } from '../../../runtime/policy/idle-only.ts';
import { io } from '../../../runtime/policy/io.ts';
import { priority } from '../../../runtime/policy/priority.ts';
import { matcher, type SelectorSpec, selector, selectorName } from '../../../runtime/policy/selector.ts';
import type { Action, DomainView, Policy, ProcessView } from '../../../runtime/policy/world.ts';
import { domainsOf, held, observed, processOf } from './worlds.ts';

const BACKUP: SelectorSpec = { comm: 'backup*' };
const DB: SelectorSpec = { host: 'b*', comm: 'postgres' };
const MONITOR: SelectorSpec = { comm: 'node_exporter' };

/** A host whose process is at work, as it would tell it. */
function hostAtWork(host: string, comm: string, specs: readonly SelectorSpec[], claims = specs): DomainView {
  const matched = new Set(matcher(claims, host)(processOf('vm', { comm })));
  const processes = [processOf(`fleet:${host}`, { comm, ranNs: 3e8, elsewhere: { host, matched } })];
  return { id: `fleet:${host}`, name: host, vcpus: 0, elsewhere: true, processes };
}

const placed = <M>(
  policy: Policy<M>,
  select: readonly SelectorSpec[],
  facts: Partial<PlacedPolicy> = {},
) => ({
  name: 'p',
  policy: policy as unknown as Policy,
  select: selector(select, 'a'),
  windows: [],
  limit: undefined,
  ...facts,
});

const here = () => domainsOf({ vm: [{ comm: 'backup', ranNs: 1e8, state: 'running' }] });

function decided(
  entry: PlacedPolicy,
  elsewhere: readonly DomainView[],
  never?: (process: ProcessView) => boolean,
) {
  const decide = combine([entry], never);
  const first = decide(observed([...here(), ...elsewhere]));
  return decide(observed([...here(), ...elsewhere], 10_500), first.memory);
}

test('idle-only: what works on another host counts, unless it is ignored or a subject itself', (t) => {
  const specs = [BACKUP, MONITOR];
  const entry = placed(idleOnly({ ignore: selector([MONITOR]) }), [BACKUP]);
  const { actions } = decided(entry, [hostAtWork('b', 'postgres', specs)]);
  t.deepEqual(held(actions), ['vm/backup']);
  t.like(actions[0], { host: 'b' });
  t.regex(actions[0]!.reason, /^fleet:b: postgres \(\d+\) runs$/);
  for (const comm of ['backup-all', 'node_exporter'])
    t.deepEqual(decided(entry, [hostAtWork('b', comm, specs)]).actions, [], comm);
  t.deepEqual(decided(entry, []).actions, []);
});

test('idle-only: what is told to use just enough does so at each tick, also at one that came a little early', (t) => {
  const entry = placed(idleOnly({ threshold: 0.01 }), [BACKUP]);
  const decide = combine([entry]);
  for (const [elapsedMs, share, isHeld] of [
    [500, 0.01, true],
    [456, 0.01, true],
    [20, 0.01, true],
    [501.7, 0.01, true],
    [456, 0.001, false],
  ] as const) {
    const [domain] = remoteDomains([atWork('b', share)], elapsedMs);
    const { actions } = decide({ ...observed([...here(), domain!]), elapsedMs, intervalMs: 500 });
    t.is(held(actions).length === 1, isHeld, `${elapsedMs} ms`);
  }
});

/** A host that was heard to use a part of a CPU. */
function atWork(host: string, share: number): HeardHost {
  const who = { domain: 'db', comm: 'postgres', pid: 7 };
  const classes = [{ matched: [], first: false, share, waits: false, who }];
  return {
    host,
    state: 'active',
    heardMs: 0,
    message: { run: 'r', seq: 1, leaseMs: 5_000, rests: false, classes },
  };
}

test('priority, io: a process of another host goes first if a selector of its host says so', (t) => {
  const order = [selector([DB], 'a'), selector([BACKUP], 'a')];
  const first = placed(priority({ order }), [DB, BACKUP]);
  const second = placed(io({ protect: selector([DB], 'a') }), [BACKUP]);
  for (const entry of [first, second]) {
    const { actions } = decided(entry, [hostAtWork('b1', 'postgres', [DB, BACKUP])]);
    t.deepEqual(held(actions), ['vm/backup']);
    t.like(
      actions.find(({ type }) => type === 'hold'),
      { host: 'b1' },
    );
    t.deepEqual(held(decided(entry, [hostAtWork('b1', 'nginx', [DB, BACKUP])]).actions), []);
  }
});

test('a host cannot claim to be another one: a selector’s `host` is checked here', (t) => {
  const entry = placed(io({ protect: selector([DB], 'a') }), [BACKUP]);
  const liar = hostAtWork('web', 'postgres', [DB]);
  const process = liar.processes[0]!;
  const forged = { ...process, elsewhere: { host: 'web', matched: new Set([selectorName(DB)]) } };
  t.deepEqual(held(decided(entry, [{ ...liar, processes: [forged] }]).actions), []);
});

test('policies that divide this host’s CPUs do not see others; no action on another host is passed on', (t) => {
  const share = placed(fairShare(), [{ comm: '*' }], { ownHostOnly: true });
  t.deepEqual(decided(share, [hostAtWork('b', 'postgres', [{ comm: '*' }])]).actions, []);
  let seen = 0;
  const wild: Policy = ({ domains }) => ({
    actions: domains.flatMap(({ id, processes }): Action[] => {
      seen += processes.length;
      return [
        { type: 'weight', domain: id, weight: 7, reason: 'x' },
        ...processes.map(({ key }) => ({ type: 'hold' as const, process: key, reason: 'x' })),
      ];
    }),
  });
  const { actions } = decided(placed(wild, [{ comm: '*' }]), [hostAtWork('b', 'postgres', [{ comm: '*' }])]);
  t.is(seen, 4, 'two looks at both hosts');
  t.deepEqual(
    actions.map((action) => ('process' in action ? action.process : action.domain)),
    ['vm', 'vm/backup'],
  );
});

test('what this host promises its own goes first: never, maxHold and the guarantee', (t) => {
  const entry = placed(idleOnly(), [BACKUP]);
  const busy = [hostAtWork('b', 'postgres', [BACKUP])];
  t.deepEqual(decided(entry, busy, selector([BACKUP])).actions, []);
  const limited = combine([{ ...entry, limit: { maxHoldMs: 5_000, sliceMs: 1_000 } }]);
  const long = domainsOf({ vm: [{ comm: 'backup', state: 'held', heldMs: 4_900 }] });
  t.deepEqual(held(limited(observed([...long, ...busy])).actions), []);
  // A tenth of a CPU: in 30 s of another host's work, 3 slices of 1 s.
  const decide = combine([entry], undefined, undefined, { of: () => 0.1, sliceMs: 1_000 });
  let memory: ReturnType<typeof decide>['memory'] | undefined;
  let state: ProcessView['state'] = 'running';
  let ranMs = 0;
  for (let nowMs = 0; nowMs < 30_000; nowMs += 500) {
    const mine = domainsOf({ vm: [{ comm: 'backup', state, ranNs: state === 'held' ? 0 : 5e8 }] });
    if (state !== 'held') ranMs += 500;
    const now = decide(observed([...mine, ...busy], nowMs), memory);
    ({ memory } = now);
    state = held(now.actions).length > 0 ? 'held' : 'running';
  }
  t.true(ranMs >= 2_500 && ranMs <= 5_000, `${ranMs} ms`);
});

test('a selector has one name on every host, whatever the order of its keys; `host` is this host’s name', (t) => {
  t.is(selectorName({ comm: 'a', domain: 'b' }), selectorName({ domain: 'b', comm: 'a' }));
  t.not(selectorName({ comm: 'a' }), selectorName({ domain: 'a' }));
  t.is(selectorName({ comm: 'a', user: undefined }), selectorName({ comm: 'a' }));
  const process = processOf('vm', { comm: 'postgres' });
  t.true(selector([DB], 'b7')(process));
  t.false(selector([DB], 'a')(process));
  t.false(selector([DB])(process), 'a host without a fleet has no name');
});
