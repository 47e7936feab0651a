import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { projectDirectory } from '../../../kernels/paths.ts';
import { parseConfig } from '../../../runtime/daemon/config.ts';
import { CONFIG, POLICY } from '../../../runtime/daemon/config-schema.ts';
import { makePolicies } from '../../../runtime/daemon/policies.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { domainsOf, held, observed } from '../policy/worlds.ts';

const sample = new URL('../../../runtime/daemon/domsched.toml', import.meta.url);

function problemsOf(text: string): readonly string[] {
  try {
    parseConfig(text, 'x.toml');
    return [];
  } catch (error) {
    if (!(error instanceof DomschedError) || error.code !== 'config-invalid') throw error;
    return error.details.problems as readonly string[];
  }
}

test('the sample is valid, has a comment for every key, and each of its examples is valid too', async (t) => {
  const text = await readFile(sample, 'utf8');
  t.is(parseConfig(text, 'sample').policy.length, 1);
  const examples = text.replace(/^# (?=\[|[a-z]\w* = )/gim, '');
  t.is(parseConfig(examples, 'sample with all examples').policy.length, 10);
  const keys = new Set(Object.keys(CONFIG.shape));
  for (const option of POLICY.options) for (const key of Object.keys(option.shape)) keys.add(key);
  for (const key of keys) t.regex(text, new RegExp(`^(# )?( )*(\\[+)?${key}\\b`, 'm'), key);
  t.is(parseConfig('', 'empty').interval, 0.5);
});

test('every problem at once, each with its place', (t) => {
  const problems = problemsOf(`
interval = 0.001
maxhold = 3
[[policy]]
type = "idle-only"
select = [{ comm = "a", uid = 3 }]
threshold = 2
[[policy]]
type = "priority"
order = []
[[policy]]
type = "magic"
[[policy]]
type = "idle-only"
select = [{ comm = "b" }]
windows = [{ from = "25:00", to = "06:00" }]
`);
  for (const start of [
    /^interval: /,
    /maxhold/,
    /^policy\[0\]\.select\[0\]: .*uid/,
    /^policy\[0\]\.threshold: /,
    /^policy\[1\]\.order: /,
    /^policy\[2\]\.type: /,
    /^policy\[3\]\.windows\[0\]\.from: a time looks like 22:30/,
  ]) {
    t.true(
      problems.some((problem) => start.test(problem)),
      `${start}: ${problems.join('\n')}`,
    );
  }
  t.is(problems.length, 7);
  t.regex(problemsOf('a = [')[0]!, /^line 1: /);
  const twice = '[[policy]]\nname = "x"\ntype = "io"\nselect = [{}]\n';
  t.deepEqual(problemsOf(twice + twice), ['policy[1].name: policy 1 is called x too']);
});

test('protect: one target, in one of three ways', (t) => {
  const entry = '[[policy]]\ntype = "protect"\nselect = [{}]\nprotect = [{ comm = "db" }]\n';
  for (const key of ['wait = 0.005', 'share = 0.9', 'p99 = 0.002'])
    t.is(parseConfig(entry + key, key).policy[0]?.type, 'protect');
  t.deepEqual(problemsOf(entry), ['policy[0].wait: give the target: wait, share or p99']);
  t.deepEqual(problemsOf(`${entry}share = 0.9\np99 = 0.002`), [
    'policy[0].share: give one target: share or p99',
  ]);
  for (const wrong of ['share = 0', 'share = 1', 'p99 = 0'])
    t.regex(problemsOf(entry + wrong)[0]!, new RegExp(`^policy\\[0\\]\\.${wrong.split(' ')[0]}: `));
});

test('a user’s policy is a module beside the configuration; one that is none is refused', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-policy-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const config = (module: string) =>
    parseConfig(
      `[[policy]]\ntype = "module"\nselect = [{ comm = "b*" }]\nmodule = "${module}"\noptions = { why = "mine" }`,
      'x',
    );
  await writeFile(
    path.join(directory, 'good.mjs'),
    `export default ({ why }) => ({ subjects }) =>
      ({ actions: [...subjects].map((process) => ({ type: 'hold', process, reason: why })) });`,
  );
  await writeFile(path.join(directory, 'bad.mjs'), 'export default 3;');
  await writeFile(path.join(directory, 'worse.mjs'), 'export default () => ({});');
  const decide = await makePolicies(config('good.mjs'), directory);
  const { actions } = decide(observed(domainsOf({ one: [{ comm: 'backup' }, { comm: 'web' }] })));
  t.deepEqual(held(actions), ['one/backup']);
  t.is(actions[0]!.reason, 'mine; its domain is guaranteed 10 % of a CPU');
  await writeFile(path.join(directory, 'good.mjs'), 'export default () => () => ({ actions: [] });');
  const edited = await makePolicies(config('good.mjs'), directory);
  t.deepEqual(edited(observed(domainsOf({ one: [{ comm: 'backup' }] }))).actions, [], 'edited: read again');
  for (const module of ['bad.mjs', 'worse.mjs', 'missing.mjs']) {
    await t.throwsAsync(makePolicies(config(module), directory), {
      code: 'config-invalid',
      message: /policy module/,
    });
  }
});

test('check-config: a line for each problem', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'config-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'domsched.toml');
  await writeFile(file, 'interval = -1\n[[policy]]\ntype = "module"\nmodule = "\\u001b[31m"\n');
  const { status, stderr } = spawnSync(
    process.execPath,
    [path.join(projectDirectory, 'domsched.ts'), 'check-config', file],
    { encoding: 'utf8' },
  );
  t.is(status, 1);
  const [first, ...problems] = stderr.trimEnd().split('\n');
  t.is(first, `domsched: ${file} is no valid configuration:`);
  t.deepEqual(
    problems.map((problem) => /^ {2}([\w[\].]+): /.exec(problem)?.[1]),
    ['interval', 'policy[0].select'],
  );
  t.false(stderr.includes('\u001b'));
});

test('sentinel: on unless it is switched off; which policies it is for', async (t) => {
  t.is(parseConfig('', 'empty').sentinel, 0.005);
  t.is(parseConfig('sentinel = false', 'off').sentinel, false);
  for (const wrong of ['true', '0', '2.0']) t.regex(problemsOf(`sentinel = ${wrong}`)[0]!, /^sentinel: /);
  const policies = [
    'type = "idle-only"\nselect = [{ comm = "backup" }]\nignore = [{ comm = "cron" }]',
    'type = "priority"\norder = [{ comm = "db" }, { comm = "backup" }]',
    'type = "io"\nselect = [{ comm = "backup" }]\nprotect = [{ comm = "db" }]',
    'type = "io"\nselect = [{ comm = "backup" }]',
    'type = "fair-share"\nselect = [{ comm = "backup" }]',
    'type = "protect"\nselect = [{ comm = "backup" }]\nprotect = [{ comm = "db" }]\nwait = 0.01',
  ];
  const world = domainsOf({
    batch: [{ comm: 'backup', state: 'ready' }],
    web: [{ comm: 'db' }, { comm: 'cron' }, { comm: 'bash' }],
  });
  const counting: string[][] = [];
  for (const policy of policies) {
    const decide = await makePolicies(parseConfig(`[[policy]]\n${policy}`, 'x.toml'), '/');
    const { alert } = decide(observed(world));
    counting.push(
      world.flatMap(({ processes }) => processes.filter((one) => alert?.counts(one)).map(({ comm }) => comm)),
    );
  }
  t.deepEqual(counting, [['db', 'bash'], ['backup', 'db'], ['db'], ['db', 'cron', 'bash'], [], []]);
});

test('split is for machines that are found by their processes or their monitors, and not for a fleet', (t) => {
  t.deepEqual(problemsOf('split = true\nconnect = ["pid:", "pid:17", "qemu:", "qemu:unix:/run/a.sock"]'), []);
  const others = [
    '[]',
    '["pid:", "xen:"]',
    '["dump:/x"]',
    '["qemu:unix:/run/a.sock,qtest=unix:/run/b"]',
    '["qemu:/run/a"]',
  ];
  for (const connect of others) {
    const problems = problemsOf(`split = true\nconnect = ${connect}`);
    t.is(problems.length, 1, connect);
    t.regex(problems[0]!, /connect.*write connect = \["qemu:", "pid:"\]/);
    t.deepEqual(problemsOf(`connect = ${connect}`), [], 'without split');
  }
  t.deepEqual(problemsOf('split = true\nconnect = ["pid:"]\n[trace]\nfile = "/tmp/x.trace"'), []);
  const fleet = '[fleet]\nname = "a"\nservers = ["nats://127.0.0.1"]';
  const problems = problemsOf(`split = true\nconnect = ["pid:"]\n${fleet}`);
  t.is(problems.length, 1);
  t.regex(problems[0]!, /fleet.*speak for this host.*leave one of the two out/);
  t.deepEqual(problemsOf(fleet), [], 'without split');
});
