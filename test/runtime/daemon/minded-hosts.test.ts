import test from 'ava';
import { parseFleetPolicy } from '../../../runtime/daemon/fleet-policy.ts';
import { mindedHosts } from '../../../runtime/daemon/minded-hosts.ts';

const IO = (protect: string) => `[[policy]]\ntype = "io"\nselect = [{ comm = "backup" }]\n${protect}\n`;
const PRIORITY = (order: string) => `[[policy]]\ntype = "priority"\norder = [${order}]\n`;
const IDLE = '[[policy]]\ntype = "idle-only"\nselect = [{ comm = "backup", host = "a" }]\n';
const FAIR = '[[policy]]\ntype = "fair-share"\nselect = [{ comm = "*" }]\n';

const CASES: readonly (readonly [policies: string, hosts: readonly string[] | undefined])[] = [
  [IO('protect = [{ host = "db-1", comm = "postgres" }]'), ['db-1']],
  [IO('protect = [{ host = ["db-2", "db-1"] }]'), ['db-1', 'db-2']],
  [PRIORITY('{ host = "db-1" }, { host = "web-1" }'), ['db-1', 'web-1']],
  [FAIR + IO('protect = [{ host = "db-1" }]'), ['db-1']],
  // What may be any host's: no name, a pattern, an exception, no selector at all, all others.
  [PRIORITY('{ host = "db-1" }, { comm = "backup" }'), undefined],
  [IO('protect = [{ host = "db-*" }]'), undefined],
  [IO('protect = [{ host = ["db-1", "!db-2"] }]'), undefined],
  [IO(''), undefined],
  [IDLE, undefined],
  [IO('protect = [{ host = "db-1" }]') + IDLE, undefined],
  [IO(`protect = [${Array.from({ length: 65 }, (_, i) => `{ host = "db-${i}" }`).join(', ')}]`), undefined],
  // Nobody is held for others: who listens all the same looks around.
  [FAIR, undefined],
  ['', undefined],
];

test('hosts are named only if nothing that another one does can change a decision', (t) => {
  for (const [policies, hosts] of CASES)
    t.deepEqual(mindedHosts(parseFleetPolicy(policies, 'the policy').policy), hosts, policies);
});
