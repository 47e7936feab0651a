/**
 * A machine that another user runs, unprivileged, in mount and user namespaces of its own, in huge pages of a mount of its
 * own; then a CPU and memory are plugged into it while it is looked at.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../runtime/hypervisor/capability.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { FRAME_SIZE } from '../../runtime/hypervisor/frame.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { findProcess, PATIENCE_MS, runsOn } from './cycles.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { HugePages } from './huge-pages.ts';
import { until } from './until.ts';

/** Users that nobody else is: one that runs the machine, and one that has nothing to do with it. */
const [THEIRS, NOBODYS] = [64_711, 64_712];
const NAME = 'theirs';
const MIB = 2 ** 20;
const MEMORY = 256;
const DIMM = 128 * MIB;
/** Programs that are started at once in memory that was plugged in. */
const BATCH = 8;
const PAUSES = Number(process.env.DOMSCHED_CYCLES ?? 40);
const programs = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-b' },
] as const;

const asUser = (uid: number) => [
  'setpriv',
  `--reuid=${uid}`,
  `--regid=${uid}`,
  '--clear-groups',
  '--inh-caps=-all',
];

/** Runs the words after it as that user, in namespaces of its own, with huge pages mounted in a folder. */
function ownNamespaces(folder: string | undefined): string[] {
  const mount = `mkdir "$1" && mount -t hugetlbfs -o uid=${THEIRS},mode=700 none "$1" && shift && `;
  const script = `${folder === undefined ? '' : mount}exec ${asUser(THEIRS).join(' ')} unshare --user -- "$@"`;
  return ['unshare', '--mount', 'sh', '-ec', script, 'sh', ...(folder === undefined ? [] : [folder])];
}

test.serial(
  "another user's machine: root's to look at and to hold, and told to be theirs to others; what is plugged into it",
  async (t) => {
    t.timeout(900_000);
    await using stack = new AsyncDisposableStack();
    const huge = HugePages.take(MEMORY);
    if (huge !== undefined) stack.use(huge);
    const pages = (directory: string) => path.join(directory, 'pages');
    const guest = stack.use(
      await bootDebian({
        name: NAME,
        kernel: 'debian-6.1-cloud',
        programs,
        shellNice: -10,
        ram: 'elsewhere',
        memory: MEMORY,
        // CPUs that are not there yet have to be in packages of their own.
        cpus: 'cpus=2,sockets=4,cores=1,threads=1,maxcpus=4',
        as: { uid: THEIRS, words: (directory) => ownNamespaces(huge && pages(directory)) },
        devices: (directory) => [
          ...['-name', `guest=${NAME},debug-threads=on`, '-m', `${MEMORY}M,slots=4,maxmem=4G`],
          ...(huge ? ['-mem-path', pages(directory)] : []),
        ],
      }),
    );
    const pid = guest.process.pid!;
    t.regex(
      readFileSync(`/proc/${pid}/status`, 'latin1'),
      new RegExp(`^Uid:\\s+${THEIRS}\\s+${THEIRS}\\s`, 'm'),
    );
    for (const name of ['mnt', 'user'])
      t.not(readlinkSync(`/proc/${pid}/ns/${name}`), readlinkSync(`/proc/self/ns/${name}`), name);
    if (huge) t.regex(readFileSync(`/proc/${pid}/smaps`, 'latin1'), /^KernelPageSize:\s+2048 kB$/m);

    await byCommand(t, guest, stack);
    await plugged(t, guest);
    guest.checkConsole();
  },
);

/** The commands, by its process and by its socket, as root and as somebody else. */
async function byCommand(t: ExecutionContext, guest: LiveGuest, stack: AsyncDisposableStack): Promise<void> {
  const home = await mkdtemp(path.join(tmpdir(), 'domsched-theirs-'));
  await chmod(home, 0o755);
  stack.defer(() => rm(home, { recursive: true, force: true }));
  const program = [process.execPath, path.join(projectDirectory, 'dist/domsched.js')];
  const run = (uid: number, ...args: readonly string[]) => {
    const [first = '', ...rest] = [...(uid === 0 ? [] : asUser(uid)), ...program, ...args];
    const env = { HOME: home, DOMSCHED_RUNTIME_DIR: path.join(home, String(uid)), DOMSCHED_CONNECT: '' };
    return execa(first, rest, { env, reject: false });
  };
  const byProcess = `pid:${guest.process.pid}`;
  for (const connection of [byProcess, guest.connection]) {
    const domsched = (...args: readonly string[]) => run(0, '--connect', connection, ...args);
    const listed = JSON.parse((await domsched('domains', '--json')).stdout) as object[];
    t.like(listed, [{ domain: NAME, state: 'running', vcpus: 2 }], connection);
    const rows = JSON.parse((await domsched('ps', '--json')).stdout) as { comm: string; pid: number }[];
    const found = rows.filter(({ comm }) => comm === 'burner-a').map((row) => row.pid);
    t.deepEqual(found, [Number(await guest.run('pidof burner-a'))], connection);
    t.is((await domsched('hold', NAME, 'burner-a')).exitCode, 0, connection);
    const before = await guest.progress('burner-a');
    await runsOn(guest, 'burner-b');
    t.deepEqual(await guest.progress('burner-a'), before, 'it is held');
    t.is((await domsched('release', NAME, 'burner-a')).exitCode, 0, connection);
    await runsOn(guest, 'burner-a');
  }

  const theirs = (error: { code: string; message: string }) => {
    t.is(error.code, 'host-unreachable');
    t.regex(
      error.message,
      new RegExp(`of another user \\(process ${guest.process.pid}, uid ${THEIRS}\\): run as root`),
    );
  };
  for (const args of [['--connect', byProcess], []]) {
    const { stdout, stderr } = await run(NOBODYS, ...args, 'domains', '--json');
    const listed = JSON.parse(stdout || '[]') as { id: string; error: { code: string; message: string } }[];
    const found = listed.find(({ id }) => id === byProcess);
    t.truthy(found, `${args}: ${stdout}${stderr}`);
    theirs(found!.error);
    const refused = await run(NOBODYS, ...args, 'hold', NAME, 'burner-a');
    t.is(refused.exitCode, 1);
    t.regex(refused.stderr, /another user .*run as root .*\[host-unreachable\]/);
  }
  const bySocket = await run(NOBODYS, '--connect', guest.connection, 'hold', NAME, 'burner-a');
  t.is(bySocket.exitCode, 1);
  t.regex(
    bySocket.stderr,
    /permission denied; run as root or as the user that runs QEMU \[host-unreachable\]/,
  );
  await runsOn(guest, 'burner-a');
}

/** States of the threads that run its CPUs, by thread. */
function cpuStates(pid: number): Map<string, string> {
  const states = readdirSync(`/proc/${pid}/task`).map((tid) => {
    const [, name, state] = /^\d+ \((.*)\) (\S)/.exec(
      readFileSync(`/proc/${pid}/task/${tid}/stat`, 'latin1'),
    )!;
    return [tid, name!.startsWith('CPU ') ? state! : ''] as const;
  });
  return new Map(states.filter(([, state]) => state !== ''));
}

/** A CPU comes while it is paused again and again; memory comes, is used, and other memory comes and goes. */
async function plugged(t: ExecutionContext, guest: LiveGuest): Promise<void> {
  const pid = guest.process.pid!;
  const monitor = await guest.monitor();
  await using host = await connect(`pid:${pid}`);
  await using domain = await host.open(host.ids()[0]!);
  requireCapabilities(domain, 'pause', 'writeFrames');
  const attached = await Guest.attach(domain, await knownKernels());
  const surgeon = new Surgeon(domain, attached, holderFor(attached));
  const options = { limitMs: PATIENCE_MS };

  let cpus = 2;
  for (let round = 0; round < PAUSES || cpus < 3; round++) {
    const command =
      round === 3
        ? monitor.human('device_add max-x86_64-cpu,id=cpu2,socket-id=2,core-id=0,thread-id=0')
        : undefined;
    const before = [...cpuStates(pid).keys()];
    cpus = before.length;
    {
      await using guard = await domain.pause.acquire('look');
      const states = cpuStates(pid);
      const standing = before.map((tid) => states.get(tid));
      t.deepEqual([...new Set(standing)], ['t'], `all ${cpus} of its CPUs stand`);
      t.true(guard.isQuiet());
    }
    t.is(await command, command && '');
    await sleep(5);
  }
  t.is(cpus, 3);
  const file = '/sys/devices/system/cpu/cpu2/online';
  await until(
    'the guest has it',
    async (swallow) => {
      const said = await guest.run(
        `if [ -e ${file} ]; then echo 1 > ${file}; fi; cat ${path.dirname(path.dirname(file))}/online`,
      );
      return said.trim() === '0-2' || swallow(await guest.run('dmesg | tail -5'));
    },
    60_000,
  );
  await guest.run('workload burner burner-c >/dev/null 2>&1 & taskset -p 4 $!');
  await runsOn(guest, 'burner-c');

  // What it has plugged first goes to the kernel, for all uses.
  await guest.run('echo online > /sys/devices/system/memory/auto_online_blocks');
  await plug(guest, 'one');
  const added = (await monitor.human('info memory-devices')).match(/addr: 0x([0-9a-f]+)/)!;
  const at = Number.parseInt(added[1]!, 16);
  const state = `/sys/devices/system/memory/memory${at / DIMM}/state`;
  await until('it uses that memory', async () =>
    /\bonline\b/.test(await guest.run(`if [ -e ${state} ]; then cat ${state}; fi`)),
  );
  const later = async () => (await processesOf(attached)).filter(({ comm }) => comm.startsWith('later-'));
  let number = 0;
  // The guest's kernel uses up first what it has begun elsewhere; the memory is found by what is in it.
  const { region, inside } = await until('one that starts now is in that memory', async (swallow) => {
    const numbers = Array.from({ length: BATCH }, () => ++number).join(' ');
    await guest.run(`for i in ${numbers}; do workload sleeper later-$i >/dev/null 2>&1 & done`);
    const all = await until('they have started', async () => {
      const found = await later().catch(swallow);
      return found?.length === number && found;
    });
    const region = domain.frames.regions().find(({ first }) => first * FRAME_SIZE === at);
    const isThere = (frame: number) =>
      region !== undefined && frame >= region.first && frame < region.first + region.count;
    const inside = all.find(({ address }) => isThere(attached.space.translate(address).frame));
    return region && inside && { region, inside };
  });
  t.is(region.count * FRAME_SIZE, DIMM);
  const processes = await processesOf(attached);
  for (const each of [inside, findProcess(processes, 'burner-c')]) {
    t.is((await surgeon.hold(each, options)).outcome, 'held');
    const before = await guest.progress(each.comm);
    await runsOn(guest, 'burner-b');
    t.deepEqual(await guest.progress(each.comm), before);
    t.is((await surgeon.release(each, options)).outcome, 'released');
    await runsOn(guest, each.comm);
  }
  // A second look at all from the start, as each command takes.
  {
    await using again = await connect(`pid:${pid}`);
    await using other = await again.open(again.ids()[0]!);
    t.deepEqual(other.frames.regions(), domain.frames.regions());
  }

  // What it has plugged then is for programs alone, so it can be taken out again.
  await guest.run('echo online_movable > /sys/devices/system/memory/auto_online_blocks');
  await plug(guest, 'two');
  await until('it has that memory', async () => /Movable/.test(await guest.run('cat /proc/zoneinfo')));
  const burner = findProcess(processes, 'burner-a');
  t.is((await surgeon.hold(burner, options)).outcome, 'held');
  t.is(await monitor.human('device_del two'), '');
  await until('it is unplugged', async () => !(await monitor.human('info memory-devices')).includes('"two"'));
  await monitor.human('object_del mem-two');
  t.is((await surgeon.release(burner, options)).outcome, 'released');
  await runsOn(guest, 'burner-a');
  t.is((await later()).length, number);
  attached.detach();
}

async function plug(guest: LiveGuest, id: string): Promise<void> {
  const monitor = await guest.monitor();
  for (const line of [
    `object_add memory-backend-ram,id=mem-${id},size=${DIMM / MIB}M`,
    `device_add pc-dimm,id=${id},memdev=mem-${id}`,
  ]) {
    const said = await monitor.human(line);
    if (said !== '') throw new Error(`${line}: ${said}`);
  }
}
