/** What a domain of a live Xen says itself when its processes are listed, held and released from dom0. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import type { Technique } from '../../runtime/technique/step.ts';
import { compareWithProc, READ_STATS, READ_THREADS } from './against-proc.ts';
import { goesOn } from './cycles.ts';
import { parseProcStats } from './proc-stat.ts';
import type { XenTestDomain } from './xen-domain.ts';
import type { XenRemote } from './xen-remote.ts';

/** In which a domain of a busy host surely gets somewhere. */
export const PATIENCE_MS = 180_000;

/** What runs in a domain, beside what its init has started. */
export const PROGRAMS = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-nice', nice: 7 },
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'pipe', name: 'pipe-a' },
  { kind: 'threads', name: 'threads-a' },
] as const;
/** What is in user mode most of the time: held in every way in turn, the others as the surgeon likes. */
const STEADY: readonly string[] = ['burner-a', 'burner-nice'];
const TECHNIQUES = ['park', 'splice', 'state'] as const;
/** From so many cycles on, what takes long is tried too. */
export const LONG_FORM = 100;
export const NAMES = PROGRAMS.map(({ name }) => name);

/** `ps` from dom0, paused and running, is what the domain's own /proc shows. */
export async function listsAsProc(
  t: ExecutionContext,
  remote: XenRemote,
  domain: XenTestDomain,
): Promise<void> {
  for (const options of [{ pause: true }, { threads: true }]) {
    const read = options.threads ? READ_THREADS : READ_STATS;
    const before = parseProcStats(await domain.run(read));
    const seen = await remote.processes(domain.name, options);
    const after = parseProcStats(await domain.run(read));
    t.is(seen.exact, options.pause ?? false);
    compareWithProc(t, before, seen.processes, after);
  }
}

/**
 * Holds programs one after the other, sees that none of them makes progress, and lets them go again. Each is held
 * at a random moment, whether it runs, is ready or sleeps.
 * @param technique for those that are in user mode most of the time
 * @returns the states that they were in shortly before
 */
export async function holdAndRelease(
  t: ExecutionContext,
  remote: XenRemote,
  domain: XenTestDomain,
  programs: readonly string[],
  technique: Technique,
): Promise<string[]> {
  const states: string[] = [];
  for (const program of programs) {
    const way = STEADY.includes(program) ? technique : undefined;
    const { state, ...held } = await remote.hold(domain.name, program, way);
    t.is(held.outcome, 'held', program);
    if (way !== undefined) t.deepEqual(held.techniques, [way], program);
    states.push(state);
  }
  const before = await domain.progress(...programs);
  await sleep(Math.random() * 100);
  const after = await domain.progress(...programs);
  for (const program of programs) {
    if (after[program] !== before[program]) t.log(await portrait(remote, domain, program));
  }
  t.deepEqual(after, before, 'what is held makes no progress');
  for (const program of programs) {
    t.is((await remote.release(domain.name, program)).outcome, 'released', program);
  }
  await goesOn(t, domain, before, PATIENCE_MS);
  t.deepEqual(await domain.problems(), []);
  return states;
}

/** What there is to know of a program that goes on though it is held: by dom0's word, and by the domain's own. */
async function portrait(remote: XenRemote, domain: XenTestDomain, program: string): Promise<string> {
  const { processes } = await remote.processes(domain.name, { pause: true, threads: true });
  const threads = processes.filter(({ comm }) => comm === program);
  const files = threads.map(({ pid, tgid }) => `/proc/${tgid}/task/${pid}`);
  const own = await domain.run(
    `for t in ${files.join(' ')}; do cat $t/stat $t/wchan $t/stack; done; workload progress ${program}; true`,
  );
  return `${JSON.stringify(threads, (_, value) => (typeof value === 'bigint' ? String(value) : value))}\n${own}`;
}

/**
 * Lists, holds, releases and renices the programs of a domain in which they run, each time by the domain's own word.
 * They are stopped afterwards.
 */
export async function editsAsTold(
  t: ExecutionContext,
  remote: XenRemote,
  domain: XenTestDomain,
  cycles: number,
): Promise<void> {
  await remote.attach(domain.name);
  await listsAsProc(t, remote, domain);
  const begin = Date.now();
  const found = new Map<string, number>();
  let done = 0;
  for (; done < cycles; done += NAMES.length) {
    const technique = TECHNIQUES[(done / NAMES.length) % TECHNIQUES.length]!;
    // Who is alone on its CPU is never ready: the others run until these are held.
    const others = NAMES.filter((name) => !STEADY.includes(name));
    const order = technique === 'park' ? shuffled(NAMES) : [...shuffled(STEADY), ...shuffled(others)];
    for (const state of await holdAndRelease(t, remote, domain, order, technique))
      found.set(state, (found.get(state) ?? 0) + 1);
  }
  const states = [...found].map(([state, count]) => `${count} ${state}`).join(', ');
  t.log(`${done} cycles in ${Math.round((Date.now() - begin) / 1000)} s; found ${states}`);
  for (const nice of [11, 0]) {
    t.is((await remote.renice(domain.name, 'burner-a', nice)).outcome, 'reniced');
    const stats = [...parseProcStats(await domain.run(READ_STATS)).values()];
    t.is(stats.find(({ comm }) => comm === 'burner-a')?.nice, nice);
  }
  await goesOn(t, domain, await domain.progress(...NAMES), PATIENCE_MS);
  await domain.quiet(true);
}

function shuffled<T>(values: readonly T[]): T[] {
  return values
    .map((value) => ({ value, at: Math.random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ value }) => value);
}

/** With no layout of its kernel, one is read from the domain's own memory, and a process is held by that. */
export async function heldByItsOwnWord(
  t: ExecutionContext,
  remote: XenRemote,
  domain: XenTestDomain,
): Promise<void> {
  await remote.detach(domain.name);
  const { release, learnedFrom } = await remote.attach(domain.name, { unknown: true });
  t.is(learnedFrom, domain.name);
  t.is(release, (await domain.run('uname -r')).trim());
  t.is((await remote.hold(domain.name, 'burner-a')).outcome, 'held');
  const before = await domain.progress('burner-a');
  await goesOn(t, domain, await domain.progress('burner-nice'), PATIENCE_MS);
  t.deepEqual(await domain.progress('burner-a'), before);
  t.is((await remote.release(domain.name, 'burner-a')).outcome, 'released');
  await goesOn(t, domain, before, PATIENCE_MS);
  await remote.detach(domain.name);
}

/** `ps` as it is typed, without any layout. */
export async function listedByItsOwnWord(t: ExecutionContext, domain: XenTestDomain): Promise<void> {
  const listed = await withoutLayouts(domain, `ps ${domain.name}`);
  t.like(
    listed.find(({ comm }) => comm === 'burner-nice'),
    { domain: domain.name, nice: 7 },
  );
}

/** `domains` as it is typed, without any layout: it finds what an earlier command has kept. */
export async function namedByItsOwnWord(t: ExecutionContext, domain: XenTestDomain): Promise<void> {
  const known = (await withoutLayouts(domain, 'domains')).find((row) => row.domain === domain.name);
  t.like(known, { kernel: (await domain.run('uname -r')).trim() }, JSON.stringify(known));
  t.truthy(known!.layoutFrom, JSON.stringify(known));
}

/** A command in a process of its own: the layouts of the installation are covered, and its user has none. */
async function withoutLayouts(domain: XenTestDomain, command: string): Promise<Record<string, unknown>[]> {
  const said = await domain.xen.must(
    'mkdir -p /none && mount -o bind /none /domsched/dist/generated && ' +
      `{ XDG_DATA_HOME=/none DOMSCHED_CACHE_DIR=/root/bare domsched ${command} --json; code=$?; umount /domsched/dist/generated; (exit $code); }`,
    PATIENCE_MS,
  );
  return JSON.parse(said);
}
