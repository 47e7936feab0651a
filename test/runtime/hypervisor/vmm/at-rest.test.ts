import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { checkAtRest, hasMonitor } from '../../../../runtime/hypervisor/vmm/at-rest.ts';
import type { MachineProcess } from '../../../../runtime/hypervisor/vmm/machine-process.ts';
import type { MachineThreads } from '../../../../runtime/hypervisor/vmm/vcpu-threads.ts';
import { scratchFolder } from '../../../extractor/fixture.ts';

const threads: MachineThreads = { vcpus: [8, 9], named: 2, moving: undefined };

function machine(...args: string[]): MachineProcess {
  return {
    pid: 7,
    started: 1,
    name: 'web',
    isQemu: true,
    kvmVcpus: 2,
    args: ['qemu-system-x86_64', ...args],
  };
}

test('a thread that moves memory', (t) => {
  const nowhere = { libvirt: '/nonexistent', proxmox: '/nonexistent' };
  t.false(checkAtRest(machine('-nodefaults'), threads, nowhere));
  const moving = { ...threads, moving: 'live_migration' };
  t.throws(() => checkAtRest(machine(), moving, nowhere), { code: 'refused', message: /live_migration/ });
});

test("libvirt's own word: who runs, who is paused, and which jobs", (t) => {
  const libvirt = scratchFolder(t);
  const places = { libvirt, proxmox: '/nonexistent' };
  writeFileSync(
    path.join(libvirt, 'other.xml'),
    "<domstatus state='paused' reason='user' pid='8'>\n</domstatus>",
  );
  const says = (state: string, job = '') =>
    writeFileSync(
      path.join(libvirt, 'web.xml'),
      `<!-- -->\n<domstatus state='${state}' reason='booted' pid='7'>\n  ${job}\n</domstatus>`,
    );
  t.false(checkAtRest(machine('-nodefaults'), threads, places), 'no machine of it');
  says('running');
  t.true(checkAtRest(machine(), threads, places));
  says('running', "<job type='none' async='none'/>");
  t.true(checkAtRest(machine(), threads, places));
  says('running', "<job type='none' async='backup' phase='0'/>");
  t.true(checkAtRest(machine(), threads, places), 'of its disks');
  for (const job of ['migration out', 'save', 'dump', 'snapshot', 'start']) {
    says('running', `<job type='async nested' async='${job}' phase='0'/>`);
    t.throws(() => checkAtRest(machine(), threads, places), { code: 'refused', message: new RegExp(job) });
  }
  says('paused');
  t.throws(() => checkAtRest(machine(), threads, places), { code: 'refused', message: /virsh resume web/ });
});

test("Proxmox's locks", (t) => {
  const proxmox = scratchFolder(t);
  mkdirSync(proxmox, { recursive: true });
  const places = { libvirt: '/nonexistent', proxmox };
  const own = machine('-id', '100', '-nodefaults');
  const config = (text: string) => writeFileSync(path.join(proxmox, '100.conf'), text);
  config('cores: 2\nname: web\n\n[before]\nlock: snapshot\n');
  t.false(checkAtRest(own, threads, places), "a section's own");
  config('cores: 2\nlock: snapshot\n');
  t.throws(() => checkAtRest(own, threads, places), { code: 'refused', message: /snapshot/ });
  config('lock: backup\n');
  t.false(checkAtRest(own, threads, places), 'of its disks');
});

test('a monitor and nameless threads: it cannot be told, so it is refused', (t) => {
  const nowhere = { libvirt: '/nonexistent', proxmox: '/nonexistent' };
  const nameless = { ...threads, named: 0 };
  t.throws(() => checkAtRest(machine(), nameless, nowhere), { code: 'refused', message: /debug-threads=on/ });
  t.false(checkAtRest(machine('-nodefaults'), nameless, nowhere), 'nobody can order a migration');
});

test('who could give an order', (t) => {
  t.true(hasMonitor([]), 'the one in its window');
  t.false(hasMonitor(['-nodefaults']));
  t.false(hasMonitor(['-monitor', 'none']));
  t.true(hasMonitor(['-nodefaults', '-qmp', 'unix:x,server=on']));
  t.true(hasMonitor(['-nodefaults', '-mon', 'chardev=c,mode=control']));
  t.true(hasMonitor(['-nodefaults', '-serial', 'mon:stdio']));
  t.true(hasMonitor(['-monitor', 'none', '-qmp', 'stdio']));
});
