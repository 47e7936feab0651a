import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { examine } from '../../../runtime/command/doctor-run.ts';
import { scratchFolder } from '../../extractor/fixture.ts';

test('doctor tells of each place why it cannot be looked at, and what to do', async (t) => {
  const folder = scratchFolder(t);
  mkdirSync(path.join(folder, 'a folder'));
  writeFileSync(path.join(folder, 'größe,1'), 'no dump');
  const places: [string, string, RegExp][] = [
    [`dump:${folder}/a folder`, 'host-unreachable', /is a directory/],
    [`dump:${folder}/größe,,1`, 'dump-corrupt', /take the dump again/],
    [`dump:${folder}/absent`, 'host-unreachable', /no such file/],
    [`qemu:unix:${folder}/absent.sock`, 'host-unreachable', /is the virtual machine running/],
    [`qemu:unix:${folder}/größe,,1`, 'host-unreachable', /nobody listens/],
  ];
  const findings = (await examine(places.map(([place]) => place))).filter(({ check }) =>
    check.startsWith('domain '),
  );
  t.is(findings.length, places.length);
  for (const [index, [place, code, advice]] of places.entries()) {
    t.is(findings[index]!.status, 'fail', place);
    t.is(findings[index]!.found, code, place);
    t.regex(findings[index]!.advice ?? '', advice, place);
  }
});
