/** A machine of a real libvirt, as it is: held and released by its process, while libvirt notices nothing. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { requireKernel } from '../../kernels/cache.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../runtime/hypervisor/capability.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { DumpDomain } from '../../runtime/hypervisor/dump/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { GuestAgent } from './agent.ts';
import { findProcess, PATIENCE_MS } from './cycles.ts';
import { makeInitramfs } from './initramfs.ts';
import { parseProgress } from './progress.ts';
import { until } from './until.ts';

const NAME = 'domsched-libvirt';
const CYCLES = 5;
const QEMU_CONF = '/etc/libvirt/qemu.conf';
/** For a machine that may do nothing but run QEMU as root: no control groups, no namespaces, no labels on files. */
const SETTINGS = `user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
`;
const programs = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-b' },
] as const;

type LibvirtDaemon = PromiseLike<unknown> & { kill(signal: 'SIGTERM'): boolean };

/** A libvirtd of our own, by its own socket. */
class Libvirt implements AsyncDisposable {
  readonly folder: string;
  readonly #daemons: readonly LibvirtDaemon[];
  readonly #settings: string | undefined;

  private constructor(folder: string, daemons: readonly LibvirtDaemon[], settings?: string) {
    this.folder = folder;
    this.#daemons = daemons;
    this.#settings = settings;
  }

  static async start(): Promise<Libvirt> {
    const folder = await mkdtemp(path.join(tmpdir(), 'domsched-libvirt-'));
    const settings = existsSync(QEMU_CONF) ? readFileSync(QEMU_CONF, 'utf8') : undefined;
    writeFileSync(QEMU_CONF, SETTINGS);
    const config = path.join(folder, 'libvirtd.conf');
    writeFileSync(config, `unix_sock_dir = "${folder}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n`);
    mkdirSync('/run/libvirt', { recursive: true });
    const options = { reject: false, cleanup: true, stdio: 'ignore' } as const;
    const daemons = [
      execa('virtlogd', ['-p', path.join(folder, 'virtlogd.pid')], options),
      execa('libvirtd', ['-f', config, '-p', path.join(folder, 'libvirtd.pid')], options),
    ];
    const libvirt = new Libvirt(folder, daemons, settings);
    await until('libvirtd answers', async () => (await libvirt.try('list')).exitCode === 0);
    return libvirt;
  }

  try(...args: string[]) {
    const uri = `qemu+unix:///system?socket=${this.folder}/libvirt-sock`;
    return execa('virsh', ['-c', uri, ...args], { reject: false, all: true, timeout: 60_000 });
  }

  async virsh(...args: string[]): Promise<string> {
    const { exitCode, all } = await this.try(...args);
    if (exitCode !== 0) throw new Error(`virsh ${args.join(' ')}: ${all}`);
    return String(all).trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.try('destroy', NAME);
    for (const daemon of this.#daemons) daemon.kill('SIGTERM');
    await Promise.all(this.#daemons);
    if (this.#settings !== undefined) writeFileSync(QEMU_CONF, this.#settings);
    await rm(this.folder, { recursive: true, force: true });
  }
}

function machine(folder: string, vmlinuz: string): string {
  const at = (file: string) => path.join(folder, file);
  return `<domain type='qemu'>
  <name>${NAME}</name><memory unit='MiB'>384</memory><vcpu>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>${vmlinuz}</kernel><initrd>${at('initrd')}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 oops=panic</cmdline></os>
  <cpu mode='maximum'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='file'><source path='${at('console.log')}'/><target port='0'/></serial>
    <serial type='unix'><source mode='bind' path='${at('agent.sock')}'/><target port='1'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>`;
}

test.serial('a machine of libvirt: held and released, and libvirt notices nothing', async (t) => {
  t.timeout(600_000);
  await using libvirt = await Libvirt.start();
  const { folder } = libvirt;
  await makeInitramfs(path.join(folder, 'initrd'), { programs, shellNice: -10 });
  writeFileSync(path.join(folder, 'machine.xml'), machine(folder, requireKernel('debian-6.1-cloud').vmlinuz));
  await libvirt.virsh('create', path.join(folder, 'machine.xml'));
  const console = () => readFileSync(path.join(folder, 'console.log'), 'latin1');
  await until('the guest is up', () => console().includes('GUEST READY'), 240_000);
  const agent = await GuestAgent.connect(path.join(folder, 'agent.sock'));
  t.teardown(() => agent.close());
  const progress = async () =>
    parseProgress(await agent.run(`workload progress ${programs.map(({ name }) => name).join(' ')}`));

  const events = libvirt.try('event', '--domain', NAME, '--all', '--loop', '--timeout', '15');
  await using host = await connect('pid:');
  const found = (await host.list()).filter(({ identity }) => identity.name === NAME);
  t.is(found.length, 1, "by libvirt's name");
  await using domain = await host.open(found[0]!.identity.id);
  const guest = await Guest.attach(domain, await knownKernels());
  requireCapabilities(domain, 'pause', 'writeFrames');
  const surgeon = new Surgeon(domain, guest, holderFor(guest));
  const burner = findProcess(await processesOf(guest), 'burner-a');
  const options = { limitMs: PATIENCE_MS };
  for (let cycle = 0; cycle < CYCLES; cycle++) {
    t.is((await surgeon.hold(burner, options)).outcome, 'held');
    const before = await progress();
    t.is(await libvirt.virsh('domstate', NAME), 'running');
    await until('the other goes on', async () => (await progress())['burner-b']! > before['burner-b']!);
    t.is((await progress())['burner-a'], before['burner-a']);
    await surgeon.release(burner, options);
    await until('it goes on', async () => (await progress())['burner-a']! > before['burner-a']!);
  }
  {
    await using _pause = await domain.pause.acquire();
    t.regex(await libvirt.virsh('qemu-monitor-command', NAME, '--hmp', 'info status'), /running/);
  }
  t.regex(String((await events).all), /events received: 0/);

  await libvirt.virsh('suspend', NAME);
  const error = await t.throwsAsync(surgeon.hold(burner, options), { code: 'refused' });
  t.regex(error!.message, new RegExp(`paused by libvirt; virsh resume ${NAME}`));
  await libvirt.virsh('resume', NAME);
  t.is((await surgeon.hold(burner, options)).outcome, 'held');
  await surgeon.release(burner, options);

  // What the messages advise of a machine that stands still, and of one that is saved, done as it is written.
  const { pid } = domain.identity;
  process.kill(pid!, 'SIGSTOP');
  const stopped = await t.throwsAsync(surgeon.hold(burner, options), { code: 'refused' });
  await execa('sh', ['-c', /let it go on first: (kill .*)$/.exec(stopped!.message)![1]!]);
  t.is((await surgeon.hold(burner, options)).outcome, 'held');
  await surgeon.release(burner, options);
  guest.detach();
  const saved = path.join(folder, 'saved');
  await libvirt.virsh('save', NAME, saved);
  const foreign = t.throws(() => new DumpDomain(saved), { code: 'dump-unsupported' });
  const [, restore, dump] = /give virsh (restore .*), and then virsh (dump --memory-only NAME .*)$/.exec(
    foreign.message,
  )!;
  for (const command of [restore!, dump!.replace('NAME', NAME)]) await libvirt.virsh(...command.split(' '));
  await using memory = new DumpDomain(`${saved}.dump`);
  const dumped = await Guest.attach(memory, await knownKernels());
  const names = (await processesOf(dumped)).map(({ comm }) => comm);
  for (const { name } of programs) t.true(names.includes(name), name);
  dumped.detach();
  t.notRegex(console(), /BUG|Oops|WARNING|Call Trace|panic/);
});
