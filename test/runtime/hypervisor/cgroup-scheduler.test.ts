import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { cgroupScheduler } from '../../../runtime/hypervisor/qemu/cgroup-scheduler.ts';

/** A folder with the files of a unified hierarchy (Linux admin-guide/cgroup-v2). */
async function hierarchy(
  group: string,
  procs: string,
): Promise<{ root: string; file(name: string): string }> {
  const root = await mkdtemp(path.join(tmpdir(), 'domsched-cgroup-'));
  mkdirSync(path.join(root, group), { recursive: true });
  const file = (name: string) => path.join(root, group, name);
  writeFileSync(file('cpu.weight'), '100\n');
  writeFileSync(file('cpu.max'), 'max 100000\n');
  writeFileSync(file('cgroup.procs'), procs);
  return { root, file };
}

test('unified hierarchy: weight 256 is its default, cap is a share of the period', async (t) => {
  const { root, file } = await hierarchy('vm/web', '42\n');
  const scheduler = cgroupScheduler(42, root, '0::/vm/web\n')!;
  t.deepEqual(await scheduler.get(), { weight: 256, cap: 0 });
  t.deepEqual(await scheduler.set({ weight: 512, cap: 150 }), { weight: 512, cap: 150 });
  t.is(readFileSync(file('cpu.weight'), 'utf8'), '200');
  t.is(readFileSync(file('cpu.max'), 'utf8'), '150000 100000');
  await scheduler.set({ cap: 0 });
  t.is(readFileSync(file('cpu.max'), 'utf8'), 'max 100000');
  await t.throwsAsync(scheduler.set({ weight: 1_000_000 }), { code: 'usage' });
  t.is(readFileSync(file('cpu.weight'), 'utf8'), '200');
  await rm(root, { recursive: true });
});

test("libvirt's scope holds the machine, whatever group its process is in", async (t) => {
  const scope = 'machine.slice/machine-qemu\\x2d1\\x2dweb.scope';
  const { root } = await hierarchy(scope, '');
  t.not(cgroupScheduler(42, root, `0::/${scope}/libvirt/emulator\n`), undefined);
  await rm(root, { recursive: true });
});

test('a group with others in it is not touched, nor the root', async (t) => {
  const { root } = await hierarchy('user.slice', '42\n43\n');
  t.is(cgroupScheduler(42, root, '0::/user.slice\n'), undefined);
  t.is(cgroupScheduler(42, root, '0::/\n'), undefined);
  t.is(cgroupScheduler(42, root, ''), undefined);
  await rm(root, { recursive: true });
});
