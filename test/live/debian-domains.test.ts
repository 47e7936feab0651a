import { fileURLToPath } from 'node:url';
import test from 'ava';
import { execa } from 'execa';
import type { DoctorFinding } from '../../runtime/command/doctor-run.ts';
import type { DomainEntry } from '../../runtime/control/control.ts';
import { bootDebian } from './guest.ts';

const program = fileURLToPath(new URL('../../domsched.ts', import.meta.url));

async function domsched(args: string[]): Promise<{ stdout: string; exitCode: number | undefined }> {
  const { stdout, exitCode } = await execa(process.execPath, [program, ...args], { reject: false });
  return { stdout, exitCode };
}

async function buildIdOf(vmlinux: string): Promise<string | undefined> {
  const { stdout } = await execa('readelf', ['-n', vmlinux]);
  return /Build ID: ([0-9a-f]+)/.exec(stdout)?.[1];
}

test('domains and doctor: two guests with different kernels, a dead socket and a dump that is none', async (t) => {
  await using first = await bootDebian({ kernel: 'debian-6.1-cloud', name: 'web', memory: 256, cpus: 1 });
  await using second = await bootDebian({
    kernel: 'debian-6.12-cloud',
    name: 'db',
    memory: 256,
    ram: 'memfd',
  });
  const places = [first.connection, second.connection, 'qemu:unix:/nonexistent/dead.sock', `dump:${program}`];
  const connect = places.flatMap((place) => ['--connect', place]);
  const listed = await domsched(['domains', '--json', ...connect]);
  t.is(listed.exitCode, 0);
  const entries = JSON.parse(listed.stdout) as DomainEntry[];
  t.is(entries.length, 4);
  for (const [index, guest] of [first, second].entries()) {
    t.like(entries[index], {
      domain: guest.name,
      hypervisor: 'qemu',
      state: 'running',
      memoryBytes: 256 * 2 ** 20,
      vcpus: index + 1,
      kernel: (await guest.run('uname -r')).trim(),
      buildId: await buildIdOf(guest.kernel.vmlinux),
      error: null,
    });
  }
  t.deepEqual(entries[0]!.schedulers?.includes('cfs'), true);
  t.deepEqual(entries[1]!.schedulers?.includes('eevdf'), true);
  for (const { ways } of entries.slice(0, 2)) t.true(ways?.techniques.includes('park'));
  // A way that there is not has a reason.
  for (const { ways } of entries.slice(0, 2))
    for (const way of ['splice', 'state'] as const)
      t.true(ways!.techniques.includes(way) !== Object.hasOwn(ways!.refused, way), way);
  t.is(entries[2]!.ways, null);
  t.is(entries[2]!.error?.code, 'host-unreachable');
  t.not(entries[3]!.error, null);
  const examined = await domsched(['doctor', '--json', ...connect]);
  t.is(examined.exitCode, 1, 'a domain that cannot be reached is a failure');
  const findings = JSON.parse(examined.stdout) as DoctorFinding[];
  t.is(findings.find(({ check }) => check === 'domain web')?.status, 'ok');
  t.is(findings.find(({ check }) => check === 'domain dead')?.status, 'fail');
  const table = await domsched(['domains', ...connect]);
  t.regex(table.stdout, /web.*running.*256/);
  first.checkConsole();
  second.checkConsole();
});
