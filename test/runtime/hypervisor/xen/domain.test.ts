import test from 'ava';
import type { DomschedError } from '../../../../runtime/error.ts';
import { requireCapabilities } from '../../../../runtime/hypervisor/capability.ts';
import type { DomainEvent } from '../../../../runtime/hypervisor/types.ts';
import { until } from '../../../live/until.ts';
import { FakeXen } from './fake-xen.ts';

const REGISTERS = {
  inKernel: true,
  cr3: 0x1234_5000n,
  gs: 0xffff_8880_0000_0000n,
  otherGs: 0x7f00_0000_1000n,
  rip: 0xffff_ffff_8100_0123n,
  rsp: 0xffff_c900_0001_0000n,
  idt: 0xffff_fe00_0000_0000n,
};

async function guest(options: { hvm?: boolean; vcpus?: number } = {}) {
  const xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web', ...options });
  const host = await xen.connect();
  const domain = await host.open('5');
  requireCapabilities(domain, 'pause', 'registers', 'scheduler');
  return {
    xen,
    host,
    domain,
    async [Symbol.asyncDispose]() {
      await host.close();
      xen[Symbol.dispose]();
    },
  };
}

test('registers of a PV guest are those of its context, the kernel ones whatever mode it is in', async (t) => {
  await using setup = await guest();
  setup.xen.vcpu(5, 0, REGISTERS);
  setup.xen.vcpu(5, 1, { ...REGISTERS, inKernel: false, rip: 0x40_1000n });
  setup.xen.vcpuState(5, 1, { online: true, blocked: true, initialised: true });
  const [kernel, user] = await setup.domain.registers.read();
  t.like(kernel, { vcpu: 0, cpl: 0, gsBase: REGISTERS.gs, kernelGsBase: REGISTERS.otherGs, halted: false });
  t.like(kernel, { cr3: REGISTERS.cr3, rip: REGISTERS.rip, rsp: REGISTERS.rsp, rflags: 0x246n, idtBase: 0n });
  t.like(user, { vcpu: 1, cpl: 3, gsBase: REGISTERS.otherGs, kernelGsBase: REGISTERS.gs, halted: true });
  t.is(user!.rip, 0x40_1000n);
});

test('registers of an HVM guest are those that the hypervisor would save', async (t) => {
  await using setup = await guest({ hvm: true, vcpus: 3 });
  setup.xen.vcpu(5, 0, REGISTERS);
  setup.xen.vcpu(5, 2, { ...REGISTERS, inKernel: false });
  setup.xen.vcpuState(5, 1, { online: false, blocked: false, initialised: true });
  const read = await setup.domain.registers.read();
  t.deepEqual(
    read.map(({ vcpu }) => vcpu),
    [0, 2],
  );
  t.like(read[0], {
    cpl: 0,
    cr0: 0x8005_0033n,
    cr4: 0x6b0n,
    efer: 0xd01n,
    idtBase: REGISTERS.idt,
    idtLimit: 0xfff,
  });
  t.like(read[0], { gsBase: REGISTERS.gs, kernelGsBase: REGISTERS.otherGs, cr3: REGISTERS.cr3 });
  t.is(read[1]!.cpl, 3);
});

test('a vCPU that was never started has no registers', async (t) => {
  await using setup = await guest();
  setup.xen.vcpuState(5, 1, { online: true, blocked: false, initialised: false });
  t.is((await setup.domain.registers.read()).length, 1);
});

test('pauses nest: one of the hypervisor, given back with the last', async (t) => {
  await using setup = await guest();
  const { xen, domain } = setup;
  const first = await domain.pause.acquire();
  const second = await domain.pause.acquire();
  t.is(xen.pauses(5), 1);
  t.is(await domain.state(), 'paused');
  await first.release();
  t.is(xen.pauses(5), 1);
  await second.release();
  t.is(xen.pauses(5), 0);
  t.is(await domain.state(), 'running');
});

test('a domain found paused stays so, and an unpause by somebody else does not end our pause', async (t) => {
  await using setup = await guest();
  const { xen, domain } = setup;
  xen.otherPause(5, 1);
  const guard = await domain.pause.acquire();
  t.true(guard.foundPaused);
  t.is(xen.pauses(5), 2);
  xen.otherPause(5, -1);
  t.is(await domain.state(), 'paused');
  t.true(guard.valid);
  xen.otherPause(5, 1);
  await guard.release();
  t.is(xen.pauses(5), 1);
  t.is(await domain.state(), 'paused');
});

test('our pause taken back by somebody else: no guard is valid, and nothing is given back twice', async (t) => {
  await using setup = await guest();
  const { xen, domain } = setup;
  const events: DomainEvent[] = [];
  domain.onEvent((event) => events.push(event));
  const guard = await domain.pause.acquire();
  xen.otherPause(5, -1);
  t.is(await domain.state(), 'running');
  t.false(guard.valid);
  // Somebody pauses it for their own reasons.
  xen.otherPause(5, 1);
  await guard.release();
  t.is(xen.pauses(5), 1);
  t.deepEqual(events.slice(0, 2), [
    { type: 'paused', byUs: true },
    { type: 'resumed', byUs: false },
  ]);
});

test('our pause taken back, and nobody looked: the release finds nothing to give back', async (t) => {
  await using setup = await guest();
  const { xen, domain } = setup;
  const guard = await domain.pause.acquire();
  xen.otherPause(5, -1);
  await guard.release();
  t.is(xen.pauses(5), 0);
  const other = await domain.pause.acquire();
  xen.otherPause(5, -1);
  xen.run(5, 5000);
  xen.otherPause(5, 1);
  await other.release();
  t.is(xen.pauses(5), 1);
});

test('an unpause that fails is told', async (t) => {
  await using setup = await guest();
  const guard = await setup.domain.pause.acquire();
  setup.xen.fail('unpause', 1);
  await t.throwsAsync(guard.release(), { code: 'host-unreachable' });
});

test('taken back and paused again by somebody else: it has run, and that shows', async (t) => {
  await using setup = await guest();
  const { xen, domain } = setup;
  const guard = await domain.pause.acquire();
  const { generation } = domain;
  xen.otherPause(5, -1);
  xen.run(5, 1_000_000);
  xen.otherPause(5, 1);
  t.is(await domain.state(), 'paused');
  t.false(guard.valid);
  t.not(domain.generation, generation);
  await guard.release();
  t.is(xen.pauses(5), 1);
});

test('ended in the middle of a pause: gone, and releasing is no error', async (t) => {
  await using setup = await guest();
  const { xen, domain } = setup;
  const events: DomainEvent[] = [];
  domain.onEvent((event) => events.push(event));
  const guard = await domain.pause.acquire();
  xen.end(5);
  t.is(await domain.state(), 'gone');
  t.false(guard.valid);
  await guard.release();
  await t.throwsAsync(domain.pause.acquire(), { code: 'domain-gone' });
  await t.throwsAsync(domain.registers.read(), { code: 'domain-gone' });
  t.is(events.at(-1)?.type, 'gone');
});

test('ended without anyone looking: the release notices', async (t) => {
  await using setup = await guest();
  const guard = await setup.domain.pause.acquire();
  setup.xen.end(5);
  await guard.release();
  t.is(await setup.domain.state(), 'gone');
});

test('a pause that fails leaves none behind', async (t) => {
  await using setup = await guest();
  setup.xen.fail('pause', 75);
  await t.throwsAsync(setup.domain.pause.acquire(), { code: 'protocol' });
  t.is(setup.xen.pauses(5), 0);
  const guard = await setup.domain.pause.acquire();
  await guard.release();
  t.is(setup.xen.pauses(5), 0);
});

test('a pause that cannot be confirmed is given back', async (t) => {
  await using setup = await guest();
  // So that the next pause waits for nothing, and nobody else asks meanwhile.
  await (await setup.domain.pause.acquire()).release();
  // The second time that it is asked about: after the pause.
  setup.xen.fail('info', 13, 1);
  await t.throwsAsync(setup.domain.pause.acquire(), { code: 'host-unreachable' });
  t.is(setup.xen.pauses(5), 0);
});

test('a pause is proved: not one that was taken back, nor of a domain that is being saved since', async (t) => {
  await using setup = await guest();
  const { xen, domain } = setup;
  const guard = await domain.pause.acquire();
  t.deepEqual(await guard.prove(), await guard.prove());
  xen.file('proc/77/comm', 'libxl-save-help\n');
  xen.file(
    'proc/77/cmdline',
    '/usr/lib/xen-4.17/bin/libxl-save-helper\0--save-domain\0' + '11\0-1\x005\x001\0',
  );
  await t.throwsAsync(guard.prove(), { code: 'refused', message: /saved or migrated/ });
  xen.file('proc/77/comm', undefined);
  xen.file('proc/77/cmdline', undefined);
  await guard.prove();
  xen.shutdown(5, 2);
  await t.throwsAsync(guard.prove(), { code: 'refused', message: /saved or migrated/ });
  await guard.release();
});

for (const [flags, how] of [
  ['0', 'once it has suspended itself'],
  ['2', 'once it has suspended itself, and told in detail'],
] as const) {
  test(`a save that reads memory ${how} is awaited by the pause, which stays proved`, async (t) => {
    await using setup = await guest();
    const { xen, domain } = setup;
    const guard = await domain.pause.acquire();
    const before = await guard.prove();
    xen.file('proc/77/comm', 'libxl-save-help\n');
    xen.file('proc/77/cmdline', `libxl-save-helper\0--save-domain\x0011\0-1\x005\0${flags}\x000\x000\0`);
    t.deepEqual(await guard.prove(), before);
    await guard.release();
    t.is(xen.pauses(5), 0, 'it can suspend itself');
    await t.throwsAsync(domain.pause.acquire(), { code: 'refused', message: /saved or migrated/ });
  });
}

// The last is an older helper's, whose flags come behind two other numbers.
for (const flags of [
  '',
  '\x00',
  '1',
  '1\x000\x000\0',
  '3\x000\x000\0',
  'live\x000\x000\0',
  '0\x000\x001\x000\x0012\x000\0',
]) {
  test(`a save with the flags ${JSON.stringify(flags)} may read memory already`, async (t) => {
    await using setup = await guest();
    const guard = await setup.domain.pause.acquire();
    setup.xen.file('proc/77/comm', 'libxl-save-help\n');
    setup.xen.file('proc/77/cmdline', `libxl-save-helper\0--save-domain\x0011\0-1\x005\0${flags}`);
    await t.throwsAsync(guard.prove(), { code: 'refused', message: /saved or migrated/ });
    await guard.release();
  });
}

test('run and paused again by somebody else: proved no more', async (t) => {
  await using setup = await guest();
  const guard = await setup.domain.pause.acquire();
  setup.xen.otherPause(5, -1);
  setup.xen.run(5, 1_000_000);
  setup.xen.otherPause(5, 1);
  await t.throwsAsync(guard.prove(), { code: 'edit-conflict' });
  t.false(guard.valid);
});

test('another domain under the same number is not ours: neither proved nor resumed', async (t) => {
  await using setup = await guest();
  const { xen, domain } = setup;
  const guard = await domain.pause.acquire();
  xen.set('uuid', 99, 5);
  await t.throwsAsync(guard.prove(), { code: 'domain-gone' });
  await guard.release();
  t.is(xen.pauses(5), 1, 'its pauses are not taken back');
});

test('suspended, shut down or being saved: refused before it is paused', async (t) => {
  await using setup = await guest();
  const { xen, domain } = setup;
  xen.file('proc/77/comm', 'libxl-save-help\n');
  xen.file('proc/77/cmdline', '/usr/lib/xen-4.17/bin/libxl-save-helper\0--save-domain\x0011\0-1\x005\x001\0');
  await t.throwsAsync(domain.pause.acquire(), { code: 'refused', message: /saved or migrated/ });
  t.is(xen.pauses(5), 0);
  xen.shutdown(5, 2);
  await t.throwsAsync(domain.pause.acquire(), { code: 'refused', message: /saved or migrated/ });
  xen.shutdown(5, 3);
  t.is(await domain.state(), 'crashed');
  await t.throwsAsync(domain.pause.acquire(), { code: 'refused', message: /shut down/ });
  t.is(xen.pauses(5), 0);
});

test('a save that begins between two pauses is found a moment later, without a proof that asks for it', async (t) => {
  await using setup = await guest();
  const { xen, domain } = setup;
  const code = async () => {
    try {
      await (await domain.pause.acquire('look')).release();
      return 'paused';
    } catch (error) {
      return (error as DomschedError).code;
    }
  };
  // Twice, because what is known is forgotten again and again.
  for (let round = 0; round < 2; round++) {
    t.true(await until('nobody saves it', async () => (await code()) === 'paused'));
    xen.file('proc/77/comm', 'libxl-save-help\n');
    xen.file('proc/77/cmdline', 'libxl-save-helper\0--save-domain\x0011\0-1\x005\x001\0');
    t.true(await until('the pause is refused', async () => (await code()) === 'refused'));
    xen.file('proc/77/comm', undefined);
    xen.file('proc/77/cmdline', undefined);
  }
  t.is(xen.pauses(5), 0);
});

test('another domain that is being saved is no reason', async (t) => {
  await using setup = await guest();
  setup.xen.file('proc/77/comm', 'libxl-save-help\n');
  setup.xen.file('proc/77/cmdline', 'libxl-save-helper\0--save-domain\x005\0-1\x0012\x001\0');
  const guard = await setup.domain.pause.acquire();
  t.true(guard.valid);
  await guard.release();
});

test('abandoned: the domain stays paused when we are gone', async (t) => {
  await using setup = await guest();
  const guard = await setup.domain.pause.acquire();
  guard.abandon();
  await setup.host.close();
  t.is(setup.xen.pauses(5), 1);
});

test('closing gives every pause back', async (t) => {
  await using setup = await guest();
  await setup.domain.pause.acquire();
  await setup.domain.pause.acquire();
  await setup.domain.close();
  t.is(setup.xen.pauses(5), 0);
});

for (const [number, name] of [
  [5, 'credit'],
  [6, 'credit2'],
] as const) {
  test(`weight and cap under ${name}`, async (t) => {
    using xen = new FakeXen();
    xen.domain({ domid: 5, name: 'web' });
    xen.set('scheduler', number, 5);
    await using host = await xen.connect();
    const { scheduler } = await host.open('5');
    t.is(scheduler!.name, name);
    t.deepEqual(await scheduler!.get(), { weight: 256, cap: 0 });
    t.deepEqual(await scheduler!.set({ weight: 512 }), { weight: 512, cap: 0 });
    t.deepEqual(await scheduler!.set({ cap: 150 }), { weight: 512, cap: 150 });
    t.deepEqual(await scheduler!.set({ cap: 0 }), { weight: 512, cap: 0 });
    t.is(xen.get('weight', 5), 512);
    for (const share of [
      { weight: 0 },
      { weight: 65_536 },
      { weight: 1.5 },
      { cap: -1 },
      { cap: 201 },
      { cap: 0.5 },
    ]) {
      await t.throwsAsync(scheduler!.set(share), { code: 'usage' }, JSON.stringify(share));
    }
    t.deepEqual(await scheduler!.get(), { weight: 512, cap: 0 });
    xen.fail('set', 22);
    await t.throwsAsync(scheduler!.set({ cap: 10 }), { code: 'usage' });
    xen.end(5);
    await t.throwsAsync(scheduler!.get(), { code: 'domain-gone' });
  });
}

test('a scheduler without weights: the capability is not there', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  xen.set('scheduler', 8, 5);
  await using host = await xen.connect();
  const domain = await host.open('5');
  t.is(domain.scheduler, undefined);
  t.throws(() => requireCapabilities(domain, 'scheduler'), { code: 'capability-missing' });
});

test('interrupts go to the local APIC of the vCPU; a PV guest has none', async (t) => {
  await using setup = await guest({ hvm: true });
  const { notify } = setup.domain;
  await notify!.inject(1, 0xfd);
  t.is(setup.xen.get('msi_address'), 0xfee0_2000);
  t.is(setup.xen.get('msi_data'), 0xfd);
  await t.throwsAsync(notify!.inject(2, 0xfd), { code: 'usage' });
  await t.throwsAsync(notify!.inject(0, 3), { code: 'usage' });
  setup.xen.fail('msi', 3);
  await t.throwsAsync(notify!.inject(1, 0xfd), { code: 'domain-gone' });
  await using other = await guest();
  t.is(other.domain.notify, undefined);
});
