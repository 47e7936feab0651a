import { writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { NOBODY, readerUser } from '../../../runtime/broker/reader-user.ts';
import { scratch } from './bench.ts';

const ROOT = 'root:x:0:0:root:/root:/bin/bash';

const files: readonly [string, readonly string[], { uid: number; gid: number }][] = [
  ['the one of its name', [ROOT, 'domsched:x:998:997::/:/usr/sbin/nologin'], { uid: 998, gid: 997 }],
  ['none', [ROOT, 'domschedule:x:5:5::/:/bin/sh', 'x:domsched:6:6::/:/bin/sh'], NOBODY],
  ['root under its name', [ROOT, 'domsched:x:0:0::/:/bin/sh'], NOBODY],
  ["of root's group", [ROOT, 'domsched:x:998:0::/:/bin/sh'], NOBODY],
  ['a line that is cut short', [ROOT, 'domsched:x:998'], NOBODY],
];
for (const [what, lines, expected] of files) {
  test(`the reader's user: ${what}`, async (t) => {
    const file = path.join(await scratch(t), 'passwd');
    writeFileSync(file, `${lines.join('\n')}\n`);
    t.deepEqual(readerUser(file), expected);
  });
}

test("the reader's user, where nobody tells of users", async (t) => {
  t.deepEqual(readerUser(path.join(await scratch(t), 'absent')), NOBODY);
});
