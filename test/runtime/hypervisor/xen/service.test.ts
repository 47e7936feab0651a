import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const UNIT = fileURLToPath(new URL('../../../../systemd/domsched-xen.service', import.meta.url));
/** Units of Debian's xen-utils-common that ours goes by. */
const OF_XEN = ['xenstored.service', 'xenconsoled.service', 'xendomains.service'];

test('systemd takes the unit as it is', (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'domsched-units-'));
  try {
    for (const name of OF_XEN) writeFileSync(path.join(folder, name), '[Service]\nExecStart=/bin/true\n');
    writeFileSync(path.join(folder, 'proc-xen.mount'), '[Mount]\nWhat=xenfs\nWhere=/proc/xen\nType=xenfs\n');
    const unit = path.join(folder, 'domsched-xen.service');
    writeFileSync(unit, readFileSync(UNIT));
    const { error, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', unit], {
      // The last, empty, part stands for the units of the system itself.
      env: { ...process.env, SYSTEMD_UNIT_PATH: `${folder}:` },
      encoding: 'utf8',
    });
    t.is(error, undefined);
    // What it thinks of the system's own units is not ours.
    t.deepEqual(
      stderr.split('\n').filter((line) => line.includes('domsched')),
      [],
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('what it starts is a command that there is', async (t) => {
  const { Command } = await import('commander');
  const { register } = await import('../../../../runtime/command/run.ts');
  const program = new Command();
  register(program);
  const line = readFileSync(UNIT, 'utf8').match(/^ExecStart=\/usr\/bin\/env domsched (.*)$/m)?.[1];
  const [name, option] = line?.split(' ') ?? [];
  const command = program.commands.find((candidate) => candidate.name() === name);
  t.true(command?.options.some(({ long }) => long === option));
});
