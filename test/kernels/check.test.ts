import { readdirSync } from 'node:fs';
import { appendFile, cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { generate } from '../../codegen/index.ts';
import type { KernelLayout } from '../../extractor/contract.ts';
import { compareResults } from '../../extractor/cross-check.ts';
import { type CheckResult, compareCommitted, type Evidence, gather, judge } from '../../kernels/check.ts';
import { checkConfig } from '../../kernels/check-config.ts';
import { isSet, readConfig } from '../../kernels/config.ts';
import type { PresenceRule } from '../../kernels/config-rules.ts';
import { type LayoutFinding, render } from '../../kernels/finding.ts';
import { type Subject, subjects } from '../../kernels/subjects.ts';

/**
 * The check has to fail when any one of its sources is wrong. Each test spoils one of them: a copy of the generated
 * modules, of the configuration, of the measurements, or what one engine said.
 */
const wanted = ['debian-6.1-cloud', 'debian-6.12-cloud', 'debian-6.1-rt', 'o1-base'];
const found = subjects().filter(({ id }) => wanted.includes(id));

/** What takes time is done once for each kernel: reading it with all engines, and generating its modules. */
interface PreparedKernel {
  evidence: Evidence;
  store: string;
  folder: string;
}

const scratch = await mkdtemp(path.join(tmpdir(), 'domsched-check-'));
const prepared = new Map<string, Promise<PreparedKernel>>();
test.after.always(() => rm(scratch, { recursive: true, force: true }));

test('the kernels of this test are on this machine: `make kernels kernels-debian` brings them', (t) => {
  t.deepEqual(found.map(({ id }) => id).sort(), [...wanted].sort());
});

async function prepare(subject: Subject): Promise<PreparedKernel> {
  const store = path.join(scratch, subject.id);
  const evidence = await gather(subject, { outDir: store });
  const { folder } = await generate(evidence.layout, { outDir: store });
  return { evidence, store, folder };
}

interface Sandbox {
  subject: Subject;
  /** A store with this kernel's own layout. */
  outDir: string;
  folder: string;
  evidence(): Promise<Evidence>;
}

/** Gives a test its own copies of the generated modules and of the configuration. */
async function withSandbox(subject: Subject, action: (sandbox: Sandbox) => Promise<void>): Promise<void> {
  if (!prepared.has(subject.id)) prepared.set(subject.id, prepare(subject));
  const { evidence, store, folder } = await prepared.get(subject.id)!;
  const own = await mkdtemp(path.join(scratch, 'sandbox-'));
  const outDir = path.join(own, 'generated');
  const config = path.join(own, path.basename(subject.config));
  await cp(store, outDir, { recursive: true });
  await cp(subject.config, config);
  const copy = { ...subject, config };
  await action({
    subject: copy,
    outDir,
    folder,
    evidence: async () => ({
      ...evidence,
      config: readConfig(config),
      committed: await compareCommitted(evidence.layout, copy, outDir),
    }),
  });
}

/** The module of a structure in a store that holds one kernel. */
function moduleOf(store: string, struct: string): string {
  const folder = path.join(store, 'structs');
  const names = readdirSync(folder).filter((name) => name.startsWith(`${struct}.`));
  if (names.length !== 1) throw new Error(`${folder} has ${names.length} modules of ${struct}`);
  return path.join(folder, names[0]!);
}

async function edit(file: string, pattern: RegExp, replacement: string): Promise<void> {
  const text = await readFile(file, 'utf8');
  const changed = text.replace(pattern, replacement);
  if (changed === text) throw new Error(`${file} has nothing that matches ${pattern}`);
  await writeFile(file, changed);
}

function only(report: CheckResult, check: LayoutFinding['check']): LayoutFinding[] {
  return report.findings.filter((finding) => finding.check === check);
}

/** Every message names the committed layout, the kernel with engine and build-id, and the configuration. */
function assertThreeSides(report: CheckResult, subject: Subject): string {
  const texts = report.findings.map((finding) => render(report.release, finding));
  for (const text of texts) {
    if (!/^ {4}generated {2}generated\//m.test(text)) throw new Error(`no generated side:\n${text}`);
    const kernel = `    kernel     ${path.basename(subject.file)} (dwarf, build-id ${report.buildId})`;
    if (!text.includes(kernel)) throw new Error(`no kernel side:\n${text}`);
    if (!text.includes(`${path.basename(subject.config)}: `)) throw new Error(`no config side:\n${text}`);
  }
  return texts.join('\n');
}

for (const subject of found) {
  const isOld = subject.id.startsWith('o1-');

  test(`${subject.id}: generated, engines, measurements and configuration agree`, (t) =>
    withSandbox(subject, async ({ subject: own, evidence }) => {
      const report = judge(own, await evidence());
      t.deepEqual(report.findings, []);
      t.deepEqual(
        report.notes.filter((note) => !note.includes('no BTF')),
        [],
      );
      t.true(report.counts.rules >= (isOld ? 20 : 150), `${report.counts.rules} rules`);
      t.true(report.counts.engines.length >= 2, report.counts.engines.join());
      t.is(report.counts.facts > 0, isOld);
    }));

  test(`${subject.id}: a changed offset is found`, (t) =>
    withSandbox(subject, async ({ subject: own, outDir, evidence }) => {
      await edit(moduleOf(outDir, 'task_struct'), /(\bstatic_prio: \{ offset: )(\d+)/, '$1666$2');
      const report = judge(own, await evidence());
      const text = assertThreeSides(report, own);
      t.deepEqual(
        report.findings.map(({ check, subject: about }) => [check, about]),
        [['generated', 'task_struct.static_prio: offset']],
        text,
      );
      const [finding] = report.findings;
      t.regex(finding!.generated, /: 666\d+$/);
      t.regex(finding!.kernel, /: \d+$/);
    }));

  test(`${subject.id}: a changed build-id is found`, (t) =>
    withSandbox(subject, async ({ subject: own, outDir, folder, evidence }) => {
      await edit(path.join(outDir, folder, 'index.ts'), /(buildId: ')[0-9a-f]{8}/, '$1deadbeef');
      const report = judge(own, await evidence());
      const text = assertThreeSides(report, own);
      t.true(
        only(report, 'generated').some(({ generated }) => generated.includes('deadbeef')),
        text,
      );
    }));

  test(`${subject.id}: a member taken away is found, and the configuration says that it must be there`, (t) =>
    withSandbox(subject, async ({ subject: own, outDir, evidence }) => {
      await edit(moduleOf(outDir, 'rq'), /^ {2}push_cpu: .*(\n {4}.*|\n {2}\})*/m, '');
      const report = judge(own, await evidence());
      const text = assertThreeSides(report, own);
      const finding = report.findings.find(({ subject: about }) => about.startsWith('rq.push_cpu'));
      t.truthy(finding, text);
      t.regex(finding!.generated, /not there/);
      t.regex(finding!.config, /CONFIG_SMP=y: rq\.push_cpu there \(kernel\/sched/);
    }));

  test(`${subject.id}: a changed line of the configuration is found`, (t) =>
    withSandbox(subject, async ({ subject: own, evidence }) => {
      await edit(own.config, /^CONFIG_SMP=y$/m, '# CONFIG_SMP is not set');
      const report = judge(own, await evidence());
      const text = assertThreeSides(report, own);
      t.true(
        report.findings.every(({ check }) => check === 'config'),
        text,
      );
      const finding = report.findings.find(({ subject: about }) => about === 'rq.push_cpu');
      t.regex(finding!.kernel, /offset \d+, 4 bytes/);
      t.regex(finding!.config, /# CONFIG_SMP is not set: rq\.push_cpu not there/);
      t.regex(finding!.generated, /as in the kernel/);
    }));

  test(`${subject.id}: a kernel without a committed layout is found`, (t) =>
    withSandbox(subject, async ({ subject: own, outDir, folder, evidence }) => {
      await rm(path.join(outDir, folder), { recursive: true });
      const report = judge(own, await evidence());
      assertThreeSides(report, own);
      t.true(report.findings.some(({ subject: about }) => about === 'committed layout'));
    }));

  test(`${subject.id}: engines that disagree are found`, (t) =>
    withSandbox(subject, async ({ subject: own, evidence }) => {
      const gathered = await evidence();
      const { layout } = gathered;
      const other = structuredClone(layout);
      const moved = other.structs.rq!.members.find(({ name }) => name === 'nr_running')!;
      moved.offset += 4;
      const result = ({ structs, enums }: KernelLayout) => ({ structs, enums, dwarfVersion: null });
      const { disagreements } = compareResults(result(layout), result(other));
      const engines = gathered.engines.map((row) => (row.against === null ? row : { ...row, disagreements }));
      const report = judge(own, { ...gathered, engines });
      const text = assertThreeSides(report, own);
      t.deepEqual(
        [...new Set(report.findings.map(({ subject: about }) => about))],
        ['rq.nr_running: offset'],
        text,
      );
      t.regex(report.findings[0]!.kernel, /dwarf says \d+, (btf|gdb) says \d+/);
    }));
}

const debian = found.find(({ id }) => id === 'debian-6.1-cloud');
if (debian) {
  test('an option of one flavour does not pass for another', (t) =>
    withSandbox(debian, async ({ subject: own, evidence }) => {
      await edit(own.config, /^CONFIG_NUMA_BALANCING=y$/m, '# CONFIG_NUMA_BALANCING is not set');
      await edit(own.config, /^CONFIG_NR_CPUS=8192$/m, 'CONFIG_NR_CPUS=64');
      await appendFile(own.config, 'CONFIG_PREEMPT_RT=y\n');
      const report = judge(own, await evidence());
      assertThreeSides(report, own);
      const about = new Set(report.findings.map(({ subject }) => subject));
      for (const expected of [
        'rq.nr_numa_running',
        'task_struct.cpus_mask',
        'task_struct.alloc_lock',
        'CONFIG_PREEMPT_RT',
      ]) {
        t.true(about.has(expected), expected);
      }
      t.false(about.has('rq.__lock'));
    }));

  test('every option that alone decides on a member is noticed when it is turned round', (t) =>
    withSandbox(debian, async ({ evidence }) => {
      const { layout, config } = await evidence();
      const decided = checkConfig(layout, config).filter(
        ({ rule }) => rule.effect === 'present' && /^CONFIG_\w+$/.test(rule.when),
      );
      t.true(decided.length > 100);
      for (const { subject, rule } of decided) {
        const option = (rule as PresenceRule).when;
        const turned = { ...config, [option]: isSet(config, option) ? 'n' : 'y' };
        const wrong = checkConfig(layout, turned).filter((fact) => !fact.agrees);
        t.true(
          wrong.some((fact) => fact.subject === subject && fact.options.includes(option)),
          `${option} and ${subject}`,
        );
      }
    }));

  test('an archive that has moved on is a note, not a finding, and the new kernel is still checked', (t) =>
    withSandbox(debian, async ({ subject: own, outDir, folder, evidence }) => {
      await edit(path.join(outDir, folder, 'index.ts'), /(release: ')6\.1\.0-\d+-cloud/, '$16.1.0-1-cloud');
      await edit(own.config, /^CONFIG_NUMA_BALANCING=y$/m, '# CONFIG_NUMA_BALANCING is not set');
      const report = judge(own, await evidence());
      t.is(report.notes.length, 1);
      t.regex(report.notes[0]!, /the archive has moved on to 6\.1\.0-\d+-cloud-amd64/);
      t.true(report.findings.length > 0);
      t.true(report.findings.every(({ check }) => check === 'config'));
    }));

  test('a kernel that is not what the manifest says is found', (t) =>
    withSandbox(debian, async ({ subject: own, evidence }) => {
      const expect = { scheduler: 'eevdf', preemptRt: true, dwarfVersion: 4 } as const;
      const report = judge({ ...own, debian: { ...own.debian!, expect } }, await evidence());
      assertThreeSides(report, own);
      t.deepEqual(
        only(report, 'manifest').map(({ subject }) => subject),
        ['scheduler', 'DWARF version', 'CONFIG_PREEMPT_RT', 'sleeping spinlocks'],
      );
    }));
}

const old = found.find(({ id }) => id === 'o1-base');
if (old) {
  test('a measurement that says otherwise is found', (t) =>
    withSandbox(old, async ({ subject: own, evidence }) => {
      const facts = structuredClone(own.facts!);
      facts.structs.runqueue!.fields.find(({ name }) => name === 'curr')!.offset += 8;
      const report = judge({ ...own, facts }, await evidence());
      const text = assertThreeSides(report, own);
      t.deepEqual(
        report.findings.map(({ check, subject }) => [check, subject]),
        [['facts', 'rq.curr']],
        text,
      );
      t.regex(report.findings[0]!.kernel, /offset 72, 8 bytes; offset 80, 8 bytes by gdb/);
    }));
}
