/**
 * `make demo-fleet`: two hosts on this machine, each with a daemon and a guest of its own, and one nats-server between them.
 * One policy is set for both; the backup on one host is held while the database on the other works, and goes on when it
 * rests, and when nobody can be heard. At the end one picture of both hosts.
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import { projectDirectory } from '../kernels/paths.ts';
import { bootBurner, DemoHost, kernelOf, say, showProgress } from './demo-kit.ts';
import type { LiveGuest } from './live/guest.ts';
import { NatsServer } from './runtime/fleet/nats-server.ts';

const folder = path.join(projectDirectory, '.cache', 'demo-fleet');
await rm(folder, { recursive: true, force: true });

/** `[fleet]` of somebody whom the example of the server's configuration knows. */
async function member(name: string) {
  const directory = path.join(folder, name);
  await mkdir(directory, { recursive: true });
  const credentials = path.join(directory, 'credentials');
  await writeFile(credentials, `${name}:${name}-secret\n`, { mode: 0o600 });
  return {
    host: new DemoHost(directory, `${name}$ domsched `),
    config: path.join(directory, 'domsched.toml'),
    trace: path.join(directory, `${name}.trace`),
    fleet: `[fleet]\nservers = ["${server.url}"]\nname = "${name}"\ncredentials = ${JSON.stringify(credentials)}\nlease = 2\n`,
  };
}

say('1. One nats-server, with the accounts of examples/fleet/server.conf');
await using server = await NatsServer.start(
  await readFile(path.join(projectDirectory, 'examples/fleet/server.conf'), 'utf8'),
);
process.stdout.write(`  ${server.url}\n`);
const [operator, one, two] = [await member('operator'), await member('host-1'), await member('host-2')];

const [older, newer] = [kernelOf('bookworm'), kernelOf('trixie')];
say(`2. A guest on each host: a backup on Linux ${newer.release}, a database on ${older.release}`);
const [first, second] = await Promise.all([
  bootBurner('batch', newer.vmlinuz, 'backup'),
  bootBurner('db', older.vmlinuz, 'database'),
]);
await using batch = first;
await using db = second;
const counted = [
  { guest: batch, comm: 'backup' },
  { guest: db, comm: 'database' },
];

say('3. A daemon on each host, without a policy of its own');
const start = async ({ host, config, trace, fleet }: typeof one, guest: LiveGuest) => {
  const file = (name: string) => JSON.stringify(path.join(host.directory, name));
  await writeFile(
    config,
    `interval = 0.25\nconnect = ${JSON.stringify([guest.connection])}\n\n${fleet}\n[log]\nfile = ${file('log')}\n\n[trace]\nfile = ${JSON.stringify(trace)}\n`,
  );
  host.run(config);
};
await Promise.all([start(one, batch), start(two, db)]);
await Promise.all([one.host.has('batch', 'backup', false), two.host.has('db', 'database', false)]);

say('4. One policy for all hosts: a backup runs only while nothing else does, on any host');
const policy = path.join(folder, 'backups.toml');
// Not for the shell by which this program asks its guests either.
await writeFile(
  policy,
  '[[policy]]\ntype = "idle-only"\nname = "backups"\nselect = [{ comm = "backup" }]\nignore = [{ comm = ["init", "workload", "killall"] }]\n',
);
await writeFile(operator.config, operator.fleet);
await operator.host.domsched('fleet', 'policy', 'set', policy, '-m', 'backups wait', '-c', operator.config);
await one.host.has('batch', 'backup', true);
await one.host.domsched('fleet', 'status', '-c', one.config);
await showProgress('the database on host-2 works', counted);
await db.run('killall -STOP database || killall -STOP workload');
await one.host.has('batch', 'backup', false);
await showProgress('the database rests', counted);
await db.run('killall -CONT database || killall -CONT workload');
await one.host.has('batch', 'backup', true);
await showProgress('the database works again', counted);
await server.kill();
await one.host.misses('host-2', one.config);
await one.host.has('batch', 'backup', false);
await showProgress('the server was killed: two leases later each host goes on by itself', counted);
await Promise.all([one.host.end(), two.host.end()]);

say('5. Who ran when on both hosts, in one picture');
const timeline = path.join(folder, 'timeline.html');
await operator.host.domsched('report', one.trace, two.trace, '-o', timeline);
await operator.host.domsched('report', one.trace, two.trace, '-o', path.join(folder, 'timeline.svg'));
say(`The timeline: ${pathToFileURL(timeline)}`);
