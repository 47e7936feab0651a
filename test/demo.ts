/**
 * `make demo`: the main job on real kernels, command by command. Boots two guests with different kernels, reads the
 * layouts of both from their memory, draws a run queue, and runs the daemon over both: the backup in one is held while the
 * service in the other works. At the end a picture of who ran when.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import { projectDirectory } from '../kernels/paths.ts';
import { bootBurner, DemoHost, kernelOf, say, showProgress } from './demo-kit.ts';

const pictures = path.join(projectDirectory, '.cache', 'demo');
const host = new DemoHost(pictures, '$ npm run -s domsched -- ');
const [service, other] = [kernelOf('bookworm'), kernelOf('trixie')];
const picture = path.join(pictures, 'rq.svg');
await rm(pictures, { recursive: true, force: true });
await mkdir(pictures, { recursive: true });

say(`1. Two guests: a service on Linux ${service.release}, a backup on ${other.release}`);
const [first, second] = await Promise.all([
  bootBurner('web', service.vmlinuz, 'server'),
  bootBurner('batch', other.vmlinuz, 'backup'),
]);
await using web = first;
await using batch = second;
const counted = [
  { guest: web, comm: 'server' },
  { guest: batch, comm: 'backup' },
];

say('2. A kernel that nobody extracted is read from the memory of its guest');
await host.domsched('domains', '--connect', web.connection, '--connect', batch.connection);
await host.domsched('layouts');
await host.domsched('layouts', service.release, 'rq', '--svg', picture);

say('3. The daemon: the backup runs only while nothing else does, in any guest');
const config = path.join(pictures, 'domsched.toml');
const trace = path.join(pictures, 'trace');
const log = path.join(pictures, 'log');
await writeFile(
  config,
  `interval = 0.25
connect = ${JSON.stringify([web.connection, batch.connection])}

[log]
file = ${JSON.stringify(log)}

[trace]
file = ${JSON.stringify(trace)}

[[policy]]
type = "idle-only"
name = "backups"
select = [{ comm = "backup" }]
`,
);
await host.domsched('check-config', config);
host.run(config);
await host.has('batch', 'backup', true);
await host.domsched('domains');
await showProgress('the service works', counted);
await web.run('killall -STOP server || killall -STOP workload');
await host.has('batch', 'backup', false);
await showProgress('the service rests', counted);
await web.run('killall -CONT server || killall -CONT workload');
await host.has('batch', 'backup', true);
await showProgress('the service works again', counted);
await host.end();
await showProgress('the daemon was told to end', counted);

say('4. Who ran when, and what was held');
const timeline = path.join(pictures, 'timeline.html');
await host.domsched('report', trace, '-o', timeline);

process.stdout.write(`\nThe picture of the run queue: ${pathToFileURL(picture)}\n`);
say(`The timeline: ${pathToFileURL(timeline)}`);
