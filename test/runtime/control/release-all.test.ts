import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { releaseAll } from '../../../runtime/control/release-all.ts';
import { hostProcess } from '../../../runtime/host-process.ts';
import { machineOf } from '../../../runtime/hypervisor/vmm/machine-process.ts';
import { Journals } from '../../../runtime/surgeon/journaled-surgeon.ts';
import { until } from '../../live/until.ts';

const place = mkdtempSync(path.join(tmpdir(), 'domsched-release-'));
process.env.DOMSCHED_RUNTIME_DIR = place;
test.after.always(() => rmSync(place, { recursive: true, force: true }));

test.serial(
  'a machine that cannot be looked into is a failure where we have held somebody in it, and else a note',
  async (t) => {
    // Firmware alone, and not even that runs: no kernel is in its memory.
    const args = ['-machine', 'pc,accel=tcg', '-m', '64', '-nodefaults', '-display', 'none', '-S'];
    const qemu = spawn('qemu-system-x86_64', args, { stdio: 'ignore' });
    t.teardown(() => qemu.kill('SIGKILL'));
    const pid = qemu.pid!;
    await until('it is a machine', () => machineOf(pid) !== undefined && qemu.exitCode === null);
    const connection = `pid:${pid}`;
    const before = await releaseAll([connection], {});
    t.deepEqual([before.released, before.failures], [[], []]);
    t.regex(
      before.notes.join('\n'),
      new RegExp(`^${pid}: no record tells of holds, and it cannot be looked into: `),
    );

    await new Journals().held.add({
      domain: connection,
      name: String(pid),
      connection,
      buildId: null,
      pid: 7,
      comm: 'held',
      address: '0xffff888000000000',
      startTimeNs: 1,
      since: new Date().toISOString(),
      machine: hostProcess(pid)!,
    });
    const { failures } = await releaseAll([connection], {});
    t.like(failures[0], { domain: String(pid), code: 'kernel-unidentified' });
    qemu.kill('SIGKILL');
    await once(qemu, 'exit');
  },
);
