import test from 'ava';
import {
  type CombinedMemory,
  combine,
  NOTHING_YET,
  type PlacedPolicy,
} from '../../../runtime/policy/combine.ts';
import { proportionalShare } from '../../../runtime/policy/proportional-share.ts';
import { resumeAccounts, saveAccounts } from '../../../runtime/policy/saved-accounts.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import type { Policy } from '../../../runtime/policy/world.ts';
import { domainsOf, held, observed } from './worlds.ts';

const entry: PlacedPolicy = {
  name: 'shares',
  policy: proportionalShare({
    shares: [{ select: selector([{ comm: 'web' }]), weight: 3 }],
    leadMs: 2_000,
  }) as Policy,
  select: selector([{ comm: '*' }]),
  windows: [],
  limit: undefined,
  account: 'first',
};
/** Another daemon has other keys for the same processes. */
const names = {
  lasting: (_: string, key: string) => key.replace('/', ' '),
  key: (_: string, lasting: string) => lasting.replace(' ', '/'),
};

/** One CPU; whoever is not held wants it. A daemon is killed after each so many ticks. */
function run(ticks: number, killEvery: number, keep: boolean): number {
  const decide = combine([entry]);
  const had = { web: 0, batch: 0 };
  let memory: CombinedMemory | undefined;
  let stopped = new Set<string>();
  for (let tick = 1; tick <= ticks; tick++) {
    if (tick % killEvery === 0) {
      const saved = JSON.parse(JSON.stringify(saveAccounts([entry], memory!, names)));
      memory = keep ? resumeAccounts([entry], NOTHING_YET, saved, names, () => true) : undefined;
      if (!keep) stopped = new Set();
    }
    const free = (['web', 'batch'] as const).filter((name) => !stopped.has(`one/${name}`));
    for (const name of free) had[name] += 100 / free.length;
    const sketch = (comm: 'web' | 'batch') => ({
      comm,
      state: stopped.has(`one/${comm}`) ? ('held' as const) : ('running' as const),
      ranNs: free.includes(comm) ? (100 / free.length) * 1e6 : 0,
    });
    const domains = domainsOf({ one: [sketch('web'), sketch('batch')] });
    const decision = decide(observed(domains, tick * 100, 100), memory);
    memory = decision.memory;
    stopped = new Set(held(decision.actions));
  }
  return had.web / (had.web + had.batch);
}

test('three quarters stay three quarters however often the daemon is killed, and do not without accounts', (t) => {
  for (const every of [7, 20, 113]) {
    const part = run(6_000, every, true);
    t.true(Math.abs(part - 0.75) < 0.02, `killed every ${every} ticks: ${part}`);
  }
  const without = run(6_000, 20, false);
  t.true(without < 0.7, `they are forgotten: ${without}`);
});

test('accounts of another configuration, another boot or somebody gone do not count', (t) => {
  const { memory } = combine([entry])(
    observed(domainsOf({ one: [{ comm: 'web', state: 'running', ranNs: 5e8 }] })),
  );
  const guarantees = { one: { owedMs: 700, slice: true, members: ['one/batch'] } };
  const saved = saveAccounts([entry], { ...memory, accounts: guarantees }, names);
  t.deepEqual(saved.guarantees, [{ domain: 'one', owedMs: 700, slice: true, members: ['one batch'] }]);
  const resume = (entries: readonly PlacedPolicy[], isSame: boolean) =>
    resumeAccounts(entries, NOTHING_YET, saved, names, () => isSame);
  t.like(resume([entry], true).policies.shares, { wanting: ['one/web'], held: [] });
  t.deepEqual(resume([entry], true).accounts, guarantees);
  t.deepEqual(resume([{ ...entry, account: 'second' }], true).policies, {});
  t.like(resume([entry], false).policies.shares, { wanting: [], had: {} });
  t.deepEqual(resume([entry], false).accounts, {});
  // It ended meanwhile: the next look does not have it.
  const next = combine([entry])(observed(domainsOf({ one: [{ comm: 'other' }] })), resume([entry], true));
  t.deepEqual(Object.keys((next.memory.policies.shares as { had: object }).had), ['one/other']);
});
