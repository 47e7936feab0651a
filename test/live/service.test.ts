/** The unit under a real systemd: what the daemon may do there is all that it needs, and nobody is left held. */

import { mkdirSync } from 'node:fs';
import { chown, copyFile, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import test from 'ava';
import { projectDirectory } from '../../kernels/paths.ts';
import { bootO1, kernelFile, numbers, type O1Guest } from './o1.ts';
import { Systemd } from './systemd.ts';
import { until } from './until.ts';

const LIMIT_MS = 600_000;
const UNIT = path.join(projectDirectory, 'runtime/daemon/domsched.service');
const LOG = '/var/log/domsched/domsched.log';
const DROP_IN = '/run/systemd/system/domsched.service.d';
const NOBODY = 65_534;
/** Bits of include/uapi/linux/capability.h. */
const CAPABILITIES: Record<string, bigint> = {
  CAP_DAC_OVERRIDE: 1n << 1n,
  CAP_KILL: 1n << 5n,
  CAP_SYS_PTRACE: 1n << 19n,
  CAP_CHECKPOINT_RESTORE: 1n << 40n,
};

/** Runs a command as another user, in a control group of its own that has CPU time to give. */
const AS_NOBODY = `
for place in /sys/fs/cgroup/cpu /sys/fs/cgroup; do
  [ -e $place/cgroup.procs ] || continue
  [ ! -e $place/cgroup.controllers ] || echo +cpu > $place/cgroup.subtree_control
  mkdir $place/guest
  echo $$ > $place/guest/cgroup.procs
  break
done
exec setpriv --reuid=${NOBODY} --regid=${NOBODY} --clear-groups -- "$@"
`;

let systemd: Systemd;
let guest: O1Guest;
let socket: string;

test.before(async (t) => {
  t.timeout(LIMIT_MS);
  systemd = await Systemd.start();
  // As libvirt has it: another user's, in a control group of its own. Its socket is in /tmp, of which a unit may have its own.
  guest = await bootO1({
    name: 'o1',
    commandLine: 'run=pi1,pi2 report=50',
    launch: async (qemu, folder) => {
      const kernel = path.join(folder, 'kernel');
      await copyFile(kernelFile('base'), kernel);
      await chown(folder, NOBODY, NOBODY);
      socket = path.join(folder, 'for-domsched.sock');
      const its = qemu.map((word) => (word === kernelFile('base') ? kernel : word));
      return [
        ...systemd.enter,
        'sh',
        '-c',
        AS_NOBODY,
        'sh',
        ...its,
        '-qmp',
        `unix:${socket},server=on,wait=off`,
      ];
    },
  });
  await guest.waitFor(/^pi2 /);
  await systemd.run(
    'domsched',
    'extract',
    kernelFile('base'),
    '--quiet',
    '--out',
    '/root/.local/share/domsched/layouts',
  );
});
test.after.always(async () => {
  await systemd?.[Symbol.asyncDispose]();
  await guest?.stop();
});

test.afterEach.always(async () => {
  await systemd.try('systemctl', 'stop', 'domsched');
  await withoutDropIn();
});

/** The configuration by which one of the guest's processes waits while the other runs. */
function holding(name: string, keys = ''): Promise<void> {
  return systemd.write(
    '/etc/domsched.toml',
    `interval = 0.1
maxHold = false
guarantee = 0
${keys}
connect = ["qemu:unix:${socket}"]
[log]
level = "debug"
file = "${LOG}"
[[policy]]
type = "idle-only"
name = "night"
select = [{ comm = "${name}" }]
`,
  );
}

interface ServiceLogLine {
  readonly msg: string;
  readonly code?: string;
  readonly comm?: string;
  readonly outcome?: string;
}

async function log(): Promise<ServiceLogLine[]> {
  const text = await systemd.read(LOG).catch(() => '');
  return text
    .split('\n')
    .filter((line) => line.endsWith('}'))
    .map((line) => JSON.parse(line));
}

/** Empties the log, so that what is waited for is what comes. */
const forget = () => systemd.write(LOG, '').catch(() => {});
const logs = (what: string, wanted: (line: ServiceLogLine) => boolean) =>
  until(`the log says: ${what}`, async () => (await log()).some(wanted));
const isHeld = (line: ServiceLogLine) => line.msg === 'hold' && line.outcome === 'held';

function progress(name: string): number {
  const line = guest.lines.findLast((text) => text.startsWith(`${name} `));
  return line === undefined ? 0 : numbers(line).progress!;
}

async function goesOn(name: string): Promise<void> {
  const before = progress(name);
  await until(`${name} goes on`, () => progress(name) > before + 1);
}

/** Restarts the daemon with lines of `[Service]` of ours. */
async function withDropIn(text: string): Promise<void> {
  mkdirSync(systemd.place(DROP_IN), { recursive: true });
  await systemd.write(`${DROP_IN}/test.conf`, `[Service]\n${text}\n`);
  await systemd.run('systemctl', 'daemon-reload');
}

async function withoutDropIn(): Promise<void> {
  await rm(systemd.place(DROP_IN), { recursive: true, force: true });
  await systemd.run('systemctl', 'daemon-reload');
}

/** Of the daemon, as we see it. */
async function mainPid(): Promise<string> {
  const pid = await systemd.show('domsched', 'MainPID');
  return systemd.place(`/proc/${pid}`);
}

test.serial('it starts and stops where there is no domain', async (t) => {
  t.timeout(LIMIT_MS);
  // By its process alone the O(1) guest cannot be looked into, and `release --all` says so of what it does not know.
  await systemd.run('systemctl', 'set-environment', 'DOMSCHED_CONNECT=qemu:');
  await systemd.write('/etc/domsched.toml', 'connect = ["qemu:unix:/nowhere"]\n');
  const [, install] = /^# {5}(cp .*)$/m.exec(await readFile(UNIT, 'utf8'))!;
  await systemd.run('sh', '-c', `cd '${path.dirname(UNIT)}' && ${install}`);
  await systemd.run('systemctl', 'stop', 'domsched');
  t.is(await systemd.show('domsched', 'Result'), 'success');
});

test.serial('it holds, reloads, dies and stops; nobody is left held', async (t) => {
  t.timeout(LIMIT_MS);
  await holding('pi1');
  await systemd.run('systemctl', 'start', 'domsched');
  await logs('pi1 is held', isHeld);
  const held = progress('pi1');
  await goesOn('pi2');
  t.true(progress('pi1') <= held + 1);

  await lostAndKept(t);
  await systemd.run('domsched', 'weight', 'o1', '512');
  t.like(JSON.parse((await systemd.run('domsched', 'weight', 'o1', '--json')).stdout), [{ weight: 512 }]);

  await holding('pi2');
  await forget();
  await systemd.run('systemctl', 'reload', 'domsched');
  await logs('pi2 is held', isHeld);
  await goesOn('pi1');

  // Killed: what it held is let go, and the next one begins anew.
  await forget();
  await systemd.run('systemctl', 'kill', '--kill-who=main', '--signal=KILL', 'domsched');
  await logs('pi2 is held again', isHeld);
  t.is(await systemd.show('domsched', 'NRestarts'), '1');
  t.false((await log()).some(({ msg }) => msg === 'taken over'));

  // Killed with nobody to let go: the journal is there for the next one, and pi2 has not run between.
  await withDropIn('ExecStopPost=');
  await goesOn('pi1');
  const before = progress('pi2');
  await forget();
  await systemd.run('systemctl', 'kill', '--kill-who=main', '--signal=KILL', 'domsched');
  await logs('pi2 is taken over', ({ msg, comm }) => msg === 'taken over' && comm === 'pi2');
  await goesOn('pi1');
  t.is(progress('pi2'), before);
  await withoutDropIn();

  await systemd.run('systemctl', 'stop', 'domsched');
  t.is(await systemd.show('domsched', 'Result'), 'success');
  await goesOn('pi1');
  await goesOn('pi2');
  t.regex(
    (await systemd.run('env', 'DOMSCHED_CONNECT=qemu:', 'domsched', 'release', '--all')).stdout,
    /nothing is held/,
  );
  t.deepEqual(
    guest.lines.filter((line) => /BUG|exception|errors=[1-9]/.test(line)),
    [],
  );
});

/** What the daemon that runs, and the process beside it, may no longer do; and what they still can. */
async function lostAndKept(t: import('ava').ExecutionContext): Promise<void> {
  const proc = await mainPid();
  const status = await readFile(`${proc}/status`, 'utf8');
  const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)$`, 'm').exec(status)![1]!;
  const all = Object.values(CAPABILITIES).reduce((sum, bit) => sum | bit);
  for (const set of ['CapBnd', 'CapPrm', 'CapEff']) t.is(BigInt(`0x${field(set)}`), all, set);
  t.is(BigInt(`0x${field('CapAmb')}`), 0n);
  t.is(field('NoNewPrivs'), '1');
  t.is(field('Seccomp'), '2', 'system calls are filtered');
  const options = new Map<string, string>();
  // Later mounts cover earlier ones.
  for (const line of (await readFile(`${proc}/mountinfo`, 'utf8')).split('\n')) {
    const [, , , , place, how] = line.split(' ');
    if (place !== undefined) options.set(place, how!.split(',')[0]!);
  }
  const unlike = (how: string, ...places: string[]) => places.filter((place) => options.get(place) !== how);
  t.deepEqual(unlike('ro', '/', '/etc', '/root', '/usr/local/bin', '/run', '/dev/shm', '/var/log'), []);
  t.deepEqual(unlike('ro', '/sys', '/proc/sys'), []);
  t.deepEqual(unlike('rw', '/run/domsched', '/var/log/domsched'), []);
  t.true((await readFile(`${proc}/maps`, 'utf8')).includes(guest.memoryFile), 'the memory file is mapped');
  t.log(`CapBnd ${field('CapBnd')}, Seccomp ${field('Seccomp')}, NoNewPrivs ${field('NoNewPrivs')}`);
  t.log(
    `read-only: ${[...options]
      .filter(([, how]) => how === 'ro')
      .map(([place]) => place)
      .join(' ')}`,
  );
  t.log(/^VmRSS:.*$/m.exec(status)![0], /^Threads:.*$/m.exec(status)![0]);
}

test.serial(
  'split = true: with what the broker needs beside, a user of its own reads, without rights',
  async (t) => {
    t.timeout(LIMIT_MS);
    // The package makes it. The guest runs as nobody, whom the reader must not be.
    const postinst = await readFile(path.join(projectDirectory, 'runtime/debian/postinst'), 'utf8');
    await systemd.run('sh', '-c', /^ {2}(useradd .*)$/m.exec(postinst)![1]!);
    const uid = (await systemd.run('id', '-u', 'domsched')).stdout;
    const readme = await readFile(path.join(projectDirectory, 'runtime/broker/README.md'), 'utf8');
    const [, lines] = /^```ini\n\[Service\]\n([^`]*)```$/m.exec(readme)!;
    await withDropIn(lines!);
    const layouts = '/root/.local/share/domsched';
    await systemd.run('chmod', 'a+x', '/root', '/root/.local', '/root/.local/share');
    await systemd.run('chmod', '-R', 'a+rX', layouts);
    await holding('pi1', 'split = true');
    await forget();
    await systemd.run('systemctl', 'start', 'domsched');
    await logs('pi1 is held', isHeld);
    const held = progress('pi1');
    await goesOn('pi2');
    t.true(progress('pi1') <= held + 1);
    const status = await readFile(`${await mainPid()}/status`, 'utf8');
    t.regex(status, new RegExp(`^Uid:\\t${uid}\\t${uid}\\t${uid}\\t${uid}$`, 'm'));
    t.regex(status, /^CapEff:\t0+$/m);
    await systemd.run('systemctl', 'stop', 'domsched');
    t.is(await systemd.show('domsched', 'Result'), 'success');
    await goesOn('pi1');
  },
);

// What CAP_KILL is for does not come up here: test/runtime/hypervisor/vmm/abandon.test.ts has it.
for (const taken of Object.keys(CAPABILITIES).filter((name) => name !== 'CAP_KILL')) {
  test.serial(`it needs ${taken}`, async (t) => {
    t.timeout(LIMIT_MS);
    const left = Object.keys(CAPABILITIES).filter((name) => name !== taken);
    await withDropIn(`CapabilityBoundingSet=\nCapabilityBoundingSet=${left.join(' ')}`);
    await holding('pi1');
    await forget();
    await systemd.run('systemctl', 'start', 'domsched');
    if (taken === 'CAP_CHECKPOINT_RESTORE') {
      // It goes on through QEMU's process.
      await logs('pi1 is held', isHeld);
      t.false((await readFile(`${await mainPid()}/maps`, 'utf8')).includes(guest.memoryFile));
    } else {
      await logs('it cannot be attached to', ({ code }) => code !== undefined);
      const lines = await log();
      t.false(lines.some(isHeld));
      t.log(lines.find(({ code }) => code !== undefined)!.msg);
    }
  });
}
