/**
 * Xen by hand, for whoever works on it:
 *
 *     node test/live/xen.ts up [credit|credit2]     boots, creates domains a and b, stays until it is interrupted
 *     node test/live/xen.ts run 'xl list'           in dom0
 *     node test/live/xen.ts guest a 'ps'            in a domain
 *     node test/live/xen.ts push                    the compiled program into dom0
 *     node test/live/xen.ts create NAME pv|pvh KERNEL [what is added to its command line]
 */
import { once } from 'node:events';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { requireKernel } from '../../kernels/cache.ts';
import type { GuestProgram } from './initramfs.ts';
import { XenTestDomain } from './xen-domain.ts';
import { handBooted, OwnXenMachine, XenMachine } from './xen-machine.ts';

interface Booted {
  directory: string;
  /** By the number of their port. */
  domains: { name: string; kernel: string }[];
}

const programs: GuestProgram[] = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-nice', nice: 7 },
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'pipe', name: 'pipe-a' },
  { kind: 'threads', name: 'threads-a' },
];

async function up(scheduler: 'credit' | 'credit2'): Promise<void> {
  const interrupted = Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  await using xen = await OwnXenMachine.boot({ scheduler, svm: true });
  const booted: Booted = { directory: xen.directory, domains: [] };
  for (const name of ['a', 'b']) await create(xen, booted, name, 'pv', 'debian-6.1-cloud');
  xen.detach();
  console.log(`up: ${xen.directory}`);
  await interrupted;
  await rm(handBooted, { force: true });
}

async function create(
  xen: XenMachine,
  booted: Booted,
  name: string,
  type: 'pv' | 'pvh',
  kernel: string,
  append = '',
): Promise<void> {
  const console = booted.domains.length;
  const domain = await XenTestDomain.create(xen, { name, type, kernel, console, programs, append });
  booted.domains.push({ name, kernel });
  await mkdir(path.dirname(handBooted), { recursive: true });
  await writeFile(handBooted, JSON.stringify(booted));
  await domain.ready();
}

const [what, ...args] = process.argv.slice(2);
if (what === 'up') await up((args[0] ?? 'credit') as 'credit' | 'credit2');
else {
  const booted = JSON.parse(await readFile(handBooted, 'utf8')) as Booted;
  if (what === 'guest') {
    const index = booted.domains.findIndex(({ name }) => name === args[0]);
    await using xen = await XenMachine.attach(booted.directory);
    const domain = XenTestDomain.find(xen, args[0]!, index, requireKernel(booted.domains[index]!.kernel));
    process.stdout.write(await domain.run(args.slice(1).join(' ')));
    domain.close();
  } else {
    await using xen = await XenMachine.attach(booted.directory);
    if (what === 'push') await xen.push();
    else if (what === 'create')
      await create(xen, booted, args[0]!, args[1] as 'pv' | 'pvh', args[2]!, args.slice(3).join(' '));
    else {
      const { stdout, stderr, exitCode } = await xen.run(args.join(' '), 600_000);
      process.stdout.write(stdout);
      process.stderr.write(stderr);
      process.exitCode = exitCode;
    }
  }
}
