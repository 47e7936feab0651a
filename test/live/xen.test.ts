/**
 * Xen as it is: Debian's hypervisor in QEMU, a dom0 of Debian's packages with the compiled program in it, PV domains
 * with two kernels (`xen-pvh.test.ts` has PVH). What domsched does in that dom0 is held against what Xen and the domains
 * themselves say, also when xl pauses, saves, reboots or destroys a domain in the middle of an edit.
 * `make soak` has more cycles.
 */
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { requireKernel } from '../../kernels/cache.ts';
import { goesOn } from './cycles.ts';
import { TestLayouts } from './ps-layouts.ts';
import { namesTheCulprit } from './xen-blame.ts';
import {
  editsAsTold,
  heldByItsOwnWord,
  LONG_FORM,
  listedByItsOwnWord,
  NAMES,
  PATIENCE_MS,
  PROGRAMS,
} from './xen-cycles.ts';
import { type DomainOptions, XenTestDomain } from './xen-domain.ts';
import { OwnXenMachine } from './xen-machine.ts';
import { XenRemote } from './xen-remote.ts';
import { enforces } from './xen-share.ts';

/** Holds and releases in each domain. */
const CYCLES = Number(process.env.DOMSCHED_XEN_CYCLES ?? 25);
const MINUTE = 60_000;

const DOMAINS = [
  { name: 'web', type: 'pv', kernel: 'debian-6.1-cloud' },
  { name: 'mail', type: 'pv', kernel: 'debian-6.1-cloud' },
  // Small, because a dump of all its memory is taken.
  { name: 'batch', type: 'pv', kernel: 'debian-6.12-cloud', memory: 96 },
] as const satisfies readonly Omit<DomainOptions, 'console'>[];
type Name = (typeof DOMAINS)[number]['name'];

let xen: OwnXenMachine;
let remote: XenRemote;
let layouts: TestLayouts;
const domains = {} as Record<Name, XenTestDomain>;
const started = new Set<Name>();
/** Until all is well; then as soon as something is not. */
let failed = true;

test.before('Xen boots, and its domains', async (t) => {
  t.timeout(10 * MINUTE);
  layouts = await TestLayouts.of(...new Set(DOMAINS.map(({ kernel }) => requireKernel(kernel).vmlinux)));
  xen = await OwnXenMachine.boot({
    files: [{ from: path.join(layouts.dataHome, 'domsched'), to: 'root/.local/share/domsched' }],
  });
  for (const [console, options] of DOMAINS.entries()) {
    domains[options.name] = await XenTestDomain.boot(xen, { ...options, console });
  }
  remote = await XenRemote.start(xen);
  failed = false;
});

test.afterEach.always(async (t) => {
  if (!t.passed) failed = true;
});

test.after.always(async () => {
  for (const domain of Object.values(domains)) domain.close();
  if (failed) await xen?.keepArtefacts();
  await xen?.[Symbol.asyncDispose]();
  await layouts?.[Symbol.asyncDispose]();
});

test.serial('doctor and domains: what there is, by name and kernel', async (t) => {
  t.timeout(15 * MINUTE);
  // Once as it is typed: its start takes seconds in dom0.
  t.regex(await xen.must('domsched --version'), /^\d+\.\d+\.\d+\n$/);
  const doctor = await remote.json<{ check: string; status: string }[]>('doctor');
  t.is(doctor.find(({ check }) => check === 'Xen')?.status, 'ok');
  const listed = await remote.json<Record<string, unknown>[]>('domains');
  t.deepEqual(listed.map(({ domain }) => domain).sort(), DOMAINS.map(({ name }) => name).sort());
  for (const { name } of DOMAINS) {
    const row = listed.find((candidate) => candidate.domain === name);
    const kernel = (await domains[name].run('uname -r')).trim();
    t.like(row, { hypervisor: 'xen', state: 'running', kernel }, JSON.stringify(row));
  }
});

test.serial('weight and cap under credit, by the CPU time that Xen counts', async (t) => {
  t.timeout(15 * MINUTE);
  // The others do nothing yet: on a hypervisor with one CPU, what the two get is what the others leave.
  for (const name of ['web', 'mail'] as const) await start(t, name);
  await enforces(t, xen, remote, 'credit');
  for (const name of ['web', 'mail'] as const) await domains[name].quiet(true);
  await cleanConsoles(t);
});

test.serial('blame: the process of another domain that has the CPU is named first', async (t) => {
  t.timeout(10 * MINUTE);
  await namesTheCulprit(t, remote, { victim: domains.mail, culprit: domains.web });
  await cleanConsoles(t);
});

for (const { name, type, kernel } of DOMAINS) {
  test.serial(
    `${type} ${kernel} (${name}): ps, hold, release and renice, by the guest's own word`,
    async (t) => {
      t.timeout(15 * MINUTE + CYCLES * MINUTE);
      const domain = domains[name];
      await start(t, name);
      await editsAsTold(t, remote, domain, CYCLES);
      await cleanConsoles(t);
    },
  );
}

test.serial('a PV kernel that no layout is known of is read from the memory of its domain', async (t) => {
  t.timeout(10 * MINUTE);
  await start(t, 'batch');
  await heldByItsOwnWord(t, remote, domains.batch);
  if (CYCLES >= LONG_FORM) await listedByItsOwnWord(t, domains.batch);
  else t.log('`ps` without a layout: with more cycles, in `make soak`');
  await domains.batch.quiet(true);
  await cleanConsoles(t);
});

test.serial('the commands hold, ps and release', async (t) => {
  t.timeout(10 * MINUTE);
  const web = domains.web;
  await start(t, 'web');
  const [held] = await remote.json<object[]>('hold', 'web', 'burner-a', '--timeout', '120');
  t.like(held, { domain: 'web', outcome: 'held' });
  const before = await web.progress('burner-a');
  const rows = await remote.json<Record<string, unknown>[]>('ps', 'web');
  t.like(
    rows.find(({ comm }) => comm === 'burner-a'),
    { domain: 'web', state: 'held' },
  );
  t.deepEqual(await web.progress('burner-a'), before);
  const [released] = await remote.json<object[]>('release', '--all', '--timeout', '120');
  t.like(released, { domain: 'web', outcome: 'released' });
  await goesOn(t, web, before, PATIENCE_MS);
  t.is((await remote.command('hold', 'nobody', 'burner-a')).exitCode, 1, 'a domain that there is not');
  await cleanConsoles(t);
});

test.serial(
  'xl pauses a domain in the middle of an edit: it stays so, and goes on when xl says',
  async (t) => {
    t.timeout(5 * MINUTE);
    await start(t, 'web');
    const { outcome } = await remote.cycle('web', 'burner-a', 20_000);
    await xen.must('xl pause web', MINUTE, 1);
    // Not for long: a kernel that is stopped for 20 seconds says that it was locked up.
    for (const end = Date.now() + 4_000; Date.now() < end; await sleep(200)) {
      t.is(await stateOf('web'), 'p', 'paused by xl, whatever we do');
    }
    await xen.must('xl unpause web', MINUTE, 1);
    const { rounds, code } = await outcome;
    t.true(rounds >= 2);
    t.true(code === undefined || ['timeout', 'lock-held', 'guest-inconsistent'].includes(code), code);
    t.not(await stateOf('web'), 'p');
    await remote.release('web', 'burner-a');
    await goesOn(t, domains.web, await domains.web.progress(...NAMES), PATIENCE_MS);
    await domains.web.quiet(true);
    await cleanConsoles(t);
  },
);

test.serial(
  'xl saves a domain in the middle of an edit: restored, it goes on, and a dump of it is read',
  async (t) => {
    t.timeout(10 * MINUTE);
    // Through a pipe: pages of another domain cannot be written to the shared folder as they are.
    const save =
      'mkfifo /run/batch && { cat /run/batch >/host/batch.save & xl save batch /run/batch && wait; }';
    await start(t, 'batch');
    await endsEdits(t, 'batch', save, ['refused', 'domain-gone', 'timeout'], 5 * MINUTE);
    await nothingLeft(t, 'batch');
    await remote.detach('batch');
    domains.batch.close();
    // What xl saved is no dump: the message says how one is made of it.
    const { stderr } = await remote.command('ps', '--connect', 'dump:/host/batch.save');
    const advice = /give (xl restore .*), and once it runs (xl dump-core NAME .*?)( \[|$)/m.exec(stderr);
    t.truthy(advice, stderr);
    await xen.must(advice![1]!, 5 * MINUTE, 1);
    await domains.batch.bridge();
    // What was held when it was saved still is.
    await remote.release('batch', 'burner-a');
    await goesOn(t, domains.batch, await domains.batch.progress(...NAMES), PATIENCE_MS);
    await domains.batch.quiet(true);
    const dump = advice![2]!.replace('NAME', 'batch').replace('/host/batch.save.dump', '/run/core');
    await xen.must(
      `mkfifo /run/core && { cat /run/core >/host/batch.save.dump & ${dump} && wait; }`,
      5 * MINUTE,
      1,
    );
    const dumped = await remote.json<{ comm: string }[]>('ps', '--connect', 'dump:/host/batch.save.dump');
    const names = dumped.map(({ comm }) => comm);
    for (const name of NAMES) t.true(names.includes(name), `${name} in the dump`);
    await xen.must('rm /host/batch.save.dump', MINUTE, 1);
    await cleanConsoles(t);
  },
);

test.serial('xl reboots a domain in the middle of an edit: the next boot is a new guest', async (t) => {
  t.timeout(10 * MINUTE);
  await start(t, 'mail');
  await endsEdits(t, 'mail', 'xl reboot -F mail', ['refused', 'domain-gone', 'timeout']);
  await domains.mail.ready();
  await remote.detach('mail');
  domains.mail.close();
  await domains.mail.bridge();
  await domains.mail.start({ kind: 'burner', name: 'burner-b' });
  t.is((await remote.hold('mail', 'burner-b')).outcome, 'held');
  const before = await domains.mail.progress('burner-b');
  t.is((await remote.release('mail', 'burner-b')).outcome, 'released');
  await goesOn(t, domains.mail, before, PATIENCE_MS);
  await cleanConsoles(t);
});

test.serial('xl destroys a domain in the middle of an edit: nothing of it is kept', async (t) => {
  t.timeout(5 * MINUTE);
  await start(t, 'batch');
  // xl pauses it first: on a host without time for it that may take longer than the patience with a domain that stands.
  await endsEdits(t, 'batch', 'xl destroy batch', ['domain-gone', 'timeout']);
  await nothingLeft(t, 'batch');
  // The others have noticed nothing.
  await start(t, 'web');
  t.is((await remote.hold('web', 'sleeper-a')).outcome, 'held');
  t.is((await remote.release('web', 'sleeper-a')).outcome, 'released');
  await cleanConsoles(t);
});

/** Has the loads of a domain run. */
async function start(t: ExecutionContext, name: Name): Promise<void> {
  if (started.has(name)) await domains[name].quiet(false);
  else await domains[name].start(...PROGRAMS);
  started.add(name);
  await goesOn(t, domains[name], await domains[name].progress(...NAMES), PATIENCE_MS);
}

/** Holds and releases a program of a domain until a command in dom0 puts an end to that, with one of `codes`. */
async function endsEdits(
  t: ExecutionContext,
  name: Name,
  command: string,
  codes: readonly string[],
  limitMs = MINUTE,
): Promise<void> {
  const { outcome } = await remote.cycle(name, 'burner-a', 2 * MINUTE);
  const { exitCode, stdout, stderr } = await xen.run(command, limitMs, 1);
  const { rounds, code, message } = await outcome;
  const ended = `after ${rounds} rounds: ${code}, ${message}`;
  t.is(exitCode, 0, `\`${command}\` in the middle of edits, which ended ${ended}; ${stderr}${stdout}`);
  t.true(rounds >= 2);
  t.true(codes.includes(code ?? ''), ended);
}

/** A domain whose memory somebody keeps mapped stays in Xen's list, without a name and dying. */
async function nothingLeft(t: ExecutionContext, name: string): Promise<void> {
  let list = '';
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end; await sleep(500)) {
    list = await xen.must('xl list', MINUTE, 1);
    if (!list.includes(name) && !list.includes('(null)')) return;
  }
  t.fail(`there is still something of ${name}:\n${list}`);
}

async function stateOf(name: string): Promise<string> {
  const line = (await xen.must(`xl list ${name} | tail -n 1`, MINUTE, 1)).trim();
  return line.split(/\s+/).at(-2)!.replaceAll('-', '');
}

/** No domain, and neither dom0 nor Xen, has anything to complain of. */
async function cleanConsoles(t: ExecutionContext): Promise<void> {
  for (const domain of Object.values(domains)) t.deepEqual(await domain.problems(), [], domain.name);
  t.deepEqual(xen.machine.console.problems(), []);
}
