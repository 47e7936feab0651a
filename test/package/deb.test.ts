/** Debian's package: built twice, and installed where there is nothing but Debian, and no network. */
import { readFileSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { buildDeb } from '../../runtime/debian/build.ts';
import { version } from '../../runtime/version.ts';
import type { Sbom } from '../../sbom.ts';
import { defaultTasks, SYNTHETIC_KERNELS, SyntheticGuest } from '../runtime/guest/synthetic.ts';
import { writeRaw } from '../runtime/guest/write-raw.ts';
import { DebianRoot } from './debian-root.ts';

const LIMIT_MS = 1_200_000;
/** Debian 12, and what else DOMSCHED_SUITES names: a root of a suite takes some 30 s to make, once. */
const SUITES = (process.env.DOMSCHED_SUITES ?? 'bookworm').split(' ');

/** What the README has a user type after its first heading about installing. */
function typed(): string[] {
  const readme = readFileSync(path.join(projectDirectory, 'README.md'), 'utf8');
  const [, block] = /^## Installing[\s\S]*?```console\n([\s\S]*?)```/m.exec(readme)!;
  return block!
    .trim()
    .split('\n')
    .map((line) => line.replace(/^\$ /, ''));
}

let place: string;
let deb: string;

test.before(async (t) => {
  t.timeout(LIMIT_MS);
  place = await mkdtemp(path.join(tmpdir(), 'deb-'));
  deb = path.join(place, 'domsched_test_amd64.deb');
  await buildDeb(deb, 'none');
});
test.after.always(() => rm(place, { recursive: true, force: true }));

test('the Makefile builds it in the same way', async (t) => {
  const { stdout } = await execa('make', ['--dry-run', 'deb'], { cwd: projectDirectory });
  t.regex(stdout, /^node runtime\/debian\/build\.ts$/m);
});

test.serial('built again, by somebody with another umask and time zone, it is the same', async (t) => {
  t.timeout(LIMIT_MS);
  const again = path.join(place, 'again.deb');
  const build = `umask 077 && '${process.execPath}' runtime/debian/build.ts '${again}' none`;
  await execa('sh', ['-c', build], { cwd: projectDirectory, env: { TZ: 'Asia/Tokyo', LC_ALL: 'C' } });
  const [first, second] = await Promise.all([readFile(deb), readFile(again)]);
  t.true(first.equals(second));
  t.log(`${(first.length / 2 ** 20).toFixed(0)} MiB before it is compressed`);
});

for (const suite of SUITES) {
  test.serial(`${suite}: installed without a network, used, removed, purged`, async (t) => {
    t.timeout(LIMIT_MS);
    await using root = await DebianRoot.of(suite);
    const done = async (script: string): Promise<string> => {
      const result = await root.run(script);
      t.is(result.exitCode, 0, `${script}: ${result.all}`);
      return result.stdout;
    };
    const before = await root.files();
    await copyFile(deb, root.place('domsched_test_amd64.deb'));
    // As the README has it; the service needs a systemd, which test/live/service.test.ts has.
    const [build, install, ...use] = typed();
    t.is(build, 'make deb');
    t.is(use.pop(), 'systemctl enable --now domsched');
    t.regex(install!, /^apt install /);
    await done(`${install!.replace('apt install', 'apt-get install -y')}; rm /domsched_*.deb`);
    t.deepEqual(use, ['domsched doctor', 'domsched ps', 'domsched check-config /etc/domsched.toml']);
    for (const command of use) t.true([0, 1].includes((await root.run(command)).exitCode!), command);
    t.is(await done('dpkg --verify domsched'), '', 'all files are as they were packed');

    t.is(await done('domsched --version'), version());
    t.regex(await done('domsched check-config'), /^\/etc\/domsched\.toml: no problem found$/);
    const guest = await SyntheticGuest.make({ kernel: SYNTHETIC_KERNELS[1]! });
    await writeRaw(guest, root.place('tmp/vm'));
    const rows = JSON.parse(await done('domsched ps --json --connect dump:/tmp/vm')) as { comm: string }[];
    t.deepEqual(
      rows.map(({ comm }) => comm).sort(),
      defaultTasks()
        .filter(({ pid, tgid = pid }) => pid === tgid)
        .map(({ comm }) => comm)
        .sort(),
    );
    await done(`gzip -dc /usr/share/man/man8/domsched.8.gz | grep -q '^.TH "DOMSCHED" 8'; rm /tmp/vm`);
    await done('bash -n /usr/share/bash-completion/completions/domsched');
    await done(
      'test -s /usr/share/zsh/vendor-completions/_domsched -a -s /usr/share/fish/vendor_completions.d/domsched.fish',
    );
    t.regex(await done('getent passwd domsched'), /:\/nonexistent:\/usr\/sbin\/nologin$/);
    // Installing starts nothing, now or at the next boot.
    t.is(await done('find /etc/systemd /etc/rc?.d -name "*domsched*"'), '');
    await isListed(t, root);

    await done('echo "interval = 1" > /etc/domsched.toml');
    // What is held can be let go by this program alone: it stays until that is done.
    await done('mkdir -p /run/domsched/held; echo nonsense > /run/domsched/held/1.json');
    const refused = await root.run('apt-get remove -y domsched');
    t.not(refused.exitCode, 0);
    t.regex(refused.all, /domsched release --all/);
    await done('rm -r /run/domsched');
    await done('apt-get remove -y domsched');
    t.is(await done('cat /etc/domsched.toml'), 'interval = 1', "the operator's configuration stays");
    await done('mkdir -p /var/log/domsched /var/cache/domsched/layouts /run/domsched/held');
    await done('apt-get purge -y domsched');
    t.deepEqual(await root.files(), before, 'nothing of it is left');
    t.is(await done('ls /var/log | grep domsched || :'), '');
    t.is(await done('grep domsched /etc/passwd /etc/group /etc/shadow || :'), '');
  });
}

/** What its SBOM lists is what it holds. */
async function isListed(t: import('ava').ExecutionContext, root: DebianRoot): Promise<void> {
  const manifests = (await root.run('find /usr/lib/domsched/node_modules -name package.json')).stdout
    .split('\n')
    .filter((file) => /node_modules\/(@[^/]+\/)?[^/]+\/package\.json$/.test(file));
  const held = await Promise.all(
    manifests.map(async (file) => {
      const { name, version: its } = JSON.parse(await readFile(root.place(file), 'utf8'));
      return `${name}@${its}`;
    }),
  );
  const sbom = JSON.parse(await readFile(root.place('usr/share/doc/domsched/sbom.cdx.json'), 'utf8')) as Sbom;
  const listed = sbom.components.map(({ 'bom-ref': id }) => id);
  const node = (await root.run('/usr/lib/domsched/node --version')).stdout.replace('v', 'node@');
  const own = listed.filter((id) => /^(node|libdwarf)@/.test(id));
  t.is(own.length, 2);
  t.true(own.includes(node));
  t.deepEqual(listed.filter((id) => !own.includes(id)).sort(), [...new Set(held)].sort());
}
