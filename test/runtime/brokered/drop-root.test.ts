import test from 'ava';
import { NOBODY } from '../../../runtime/broker/reader-user.ts';
import { leftOf } from '../../../runtime/brokered/drop-root.ts';

const NOTHING = `Name:\tnode
Uid:\t65534\t65534\t65534\t65534
Gid:\t65534\t65534\t65534\t65534
Groups:\t 
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000000
`;

test('whatever a thread keeps of root is found', (t) => {
  t.is(leftOf(NOTHING, NOBODY), undefined);
  t.regex(leftOf(NOTHING.replace('Uid:\t65534\t65534\t65534', 'Uid:\t65534\t65534\t0'), NOBODY)!, /^Uid/);
  t.regex(leftOf(NOTHING.replace('Gid:\t65534', 'Gid:\t0'), NOBODY)!, /^Gid/);
  t.regex(leftOf(NOTHING.replace('Groups:\t ', 'Groups:\t0 4 '), NOBODY)!, /^Groups/);
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb'])
    t.regex(
      leftOf(NOTHING.replace(`${set}:\t0000000000000000`, `${set}:\t0000000000080000`), NOBODY)!,
      new RegExp(`^${set}`),
    );
});
