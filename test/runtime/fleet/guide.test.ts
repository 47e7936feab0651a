/** docs/fleet.md, step by step: its files and its commands, on the real server, with a daemon, in a folder instead of /etc. */
import { chmod, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../../kernels/paths.ts';
import { FleetClient } from '../../../runtime/fleet/client.ts';
import { FLEET } from '../../../runtime/fleet/config.ts';
import { until } from '../../live/until.ts';
import { freePort } from '../free-port.ts';

const program = path.join(projectDirectory, 'dist', 'domsched.js');
const NO_ANSWER = /no (host|server) of the fleet answer/;
/** Those of Debian and systemd, which a test does not do to the machine that it runs on. */
const SYSTEM = /^(apt|systemctl|chown|scp) /;

interface GuideStep {
  /** What it is written into, or typed on. */
  readonly where: string;
  readonly kind: string;
  readonly text: string;
}

/** The blocks of the page in their order; the line before a file's block ends with its name. */
function stepsOf(page: string): GuideStep[] {
  return [...page.matchAll(/(?:`([^`\n]+)`[^`]*?:\n\n)?^```(\w*)\n([\s\S]*?)^```$/gm)].map(
    ([, where = '', kind, text]) => ({ where, kind: kind!, text: text! }),
  );
}

test('each file and each command of docs/fleet.md does what the page says, in its order', async (t) => {
  t.timeout(1_200_000);
  const root = await mkdtemp(path.join(tmpdir(), 'domsched-guide-'));
  t.teardown(() => rm(root, { recursive: true, force: true }));
  const port = await freePort();
  /** Elsewhere than the page says, and on this machine. */
  const here = (text: string) =>
    text
      .replaceAll(/(?<=^|[\s"'=])\/(etc|var)\//gm, `${root}/$1/`)
      .replaceAll('nats-1.example', 'localhost')
      .replaceAll('0.0.0.0', '127.0.0.1')
      .replaceAll('4222', String(port));
  const bin = path.join(root, 'bin');
  for (const folder of ['bin', 'etc/nats', 'var/lib/nats', 'etc/ssl', 'run'])
    await mkdir(path.join(root, folder), { recursive: true });
  await writeFile(path.join(bin, 'domsched'), `#!/bin/sh\nexec ${process.execPath} ${program} "$@"\n`, {
    mode: 0o755,
  });
  // The configuration's examples, where the page copies them from.
  await cp(path.join(projectDirectory, 'examples'), path.join(root, 'examples'), { recursive: true });
  const env = {
    PATH: `${bin}:/usr/sbin:${process.env.PATH}`,
    DOMSCHED_RUNTIME_DIR: path.join(root, 'run'),
    DOMSCHED_CACHE_DIR: path.join(root, 'cache'),
  };
  const children: ReturnType<typeof start>[] = [];
  const start = (command: string) =>
    execa('sh', ['-c', `exec ${command}`], { cwd: root, env, reject: false, forceKillAfterDelay: 60_000 });
  t.teardown(async () => {
    for (const child of children.toReversed()) {
      child.kill();
      await child;
    }
  });

  /** What a test does instead of what changes a machine. */
  const instead: Record<string, () => Promise<unknown>> = {
    'systemctl restart nats-server': async () => {
      children.push(start(`nats-server -c ${root}/etc/nats-server.conf`));
    },
    'systemctl reload nats-server': async () => children[0]!.kill('SIGHUP'),
    'scp nats-1.example:/etc/nats/ca.pem /etc/ssl/fleet.pem': () =>
      cp(path.join(root, 'etc/nats/ca.pem'), path.join(root, 'etc/ssl/fleet.pem')),
    'systemctl restart domsched': async () => {
      children.push(start(`domsched run -c ${root}/etc/domsched.toml`));
      await until('the daemon is in its fleet', async () => {
        const { stdout } = await execa('domsched', ['fleet', 'status'], { env, reject: false });
        return stdout.startsWith('host-1: connected to');
      });
    },
  };
  const rewrite = async (file: string) => writeFile(file, here(await readFile(file, 'utf8')));

  const page = await readFile(path.join(projectDirectory, 'docs/fleet.md'), 'utf8');
  const said: Record<string, string> = {};
  let typed = 0;
  for (const { where, kind, text } of stepsOf(page)) {
    if (kind === 'toml' && where !== '') {
      const file = path.resolve(root, here(where));
      // A test looks at no machine of others.
      const more = file.endsWith('domsched.toml') ? 'connect = ["qemu:"]\n' : '';
      await writeFile(file, `${more}${here(text)}`);
      await chmod(file, 0o600);
    }
    if (kind === 'console')
      for (const [, command] of text.matchAll(/^\$ (.*)$/gm)) {
        await instead[command!]?.();
        if (SYSTEM.test(command!)) continue;
        const type = () => execa('bash', ['-c', here(command!)], { cwd: root, env, reject: false });
        let done = await type();
        // Servers and daemons that a busy machine gives no time do not answer who asks.
        for (let n = 0; n < 20 && NO_ANSWER.test(done.stderr); n++) done = await type();
        t.is(done.exitCode, 0, `${command}: ${done.stderr}`);
        said[command!] = done.stdout;
        typed++;
        // An example that was copied has the page's names.
        const [, copied] = /^cp \S+ (\/\S+)$/.exec(command!) ?? [];
        if (copied !== undefined) await rewrite(here(copied));
      }
  }
  t.true(typed >= 10, `${typed} commands`);
  const of = (start: string) => Object.entries(said).find(([command]) => command.startsWith(start))![1];
  t.regex(of('domsched fleet status'), /^host-1: connected to localhost:/);
  t.regex(of('domsched fleet policy check'), /answered/);
  t.regex(of('domsched fleet policy set'), /^revision 1 is the policy of the fleet, .*answered$/);
  t.regex(of('domsched fleet policy history'), /backups wait for everybody/);
  t.regex(of('domsched fleet policy rollback 1'), /^revision 2 /);
  t.deepEqual(JSON.parse(of('domsched ps --fleet')), []);

  // The last of forty hosts is let in, by a password of its own, and may do what the first one may.
  const accounts = await readFile(path.join(root, 'etc/fleet.conf'), 'utf8');
  const users = [...accounts.matchAll(/user: (host-\d+), password: "([^"]+)"/g)];
  t.is(users.length, 40);
  t.is(new Set(users.map(([, , password]) => password)).size, 40);
  const [, name, password] = users.at(-1)!;
  const credentials = path.join(root, 'etc/last');
  await writeFile(credentials, `${name}:${password}`, { mode: 0o600 });
  const tls = { ca: path.join(root, 'etc/ssl/fleet.pem') };
  const config = FLEET.parse({ servers: [`tls://localhost:${port}`], name, credentials, tls });
  await until('the server has read its accounts again', async (swallow) => {
    try {
      await using client = await FleetClient.open(config);
      return (await client.policies.follow().next()).value.revision === 2;
    } catch (error) {
      return swallow(error);
    }
  });
});
