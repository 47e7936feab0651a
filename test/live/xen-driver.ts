/**
 * Runs inside dom0, where starting a program takes seconds: does what it is told over a port, one JSON document a
 * line, with the compiled program that is there. `xen-remote.ts` is its other end.
 */
import { writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { Guest } from '../../runtime/guest/guest.ts';
import type { Process } from '../../runtime/guest/process.ts';
import { requireCapabilities } from '../../runtime/hypervisor/capability.ts';
import { connectAll } from '../../runtime/hypervisor/connect.ts';
import type { Domain, DomainWith } from '../../runtime/hypervisor/types.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { type OperateOptions, type Operation, Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { openDomain } from '../../runtime/watch/choose.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import type { Outcome } from './xen-machine.ts';
import type { RemoteAnswer, RemoteRequest } from './xen-remote.ts';

const PATIENCE_MS = 120_000;
/** As the commands look: of a busy domain without its queues, when these change at each look. */
const LOOK = { limitMs: PATIENCE_MS, withoutQueues: true };
/** Of a domain that somebody paused, nothing more comes. */
const CYCLE_PATIENCE_MS = 15_000;

interface Attached {
  readonly domain: DomainWith<'pause' | 'writeFrames'>;
  readonly guest: Guest;
  readonly surgeon: Surgeon;
  processes: readonly Process[];
}

await using hosts = await connectAll(['xen:']);
const attached = new Map<string, Attached>();

/** @param unknown takes no layout for known: everything comes from the domain's own memory */
async function attach(name: string, unknown = false): Promise<Attached> {
  const known = attached.get(name);
  if (known) return known;
  const domain: Domain = await openDomain(hosts, name);
  try {
    requireCapabilities(domain, 'pause', 'writeFrames', 'registers');
    const guest = await Guest.attach(domain, unknown ? [] : await knownKernels());
    // To this emulated machine its host's other work looks like CPU time of its threads.
    const surgeon = new Surgeon(domain, guest, holderFor(guest), undefined, { planMs: PATIENCE_MS });
    const entry = { domain, guest, surgeon, processes: await processesOf(guest, { limitMs: PATIENCE_MS }) };
    attached.set(name, entry);
    return entry;
  } catch (error) {
    await domain.close();
    throw error;
  }
}

async function detach(name: string): Promise<void> {
  const entry = attached.get(name);
  attached.delete(name);
  entry?.guest.detach();
  await entry?.domain.close();
}

/** The oldest process of that name: forks of a load share it, but not for long. */
function find({ processes }: Pick<Attached, 'processes'>, comm: string): Process {
  const found = processes.filter((process) => process.comm === comm).sort((a, b) => a.pid - b.pid)[0];
  if (found === undefined) throw new Error(`the guest has no ${comm}`);
  return found;
}

function brief({ outcome, techniques, attempts, pausedUs, writes }: Operation) {
  return { outcome, techniques, attempts, pausedUs, writes };
}

let commands = 0;

/** The program itself, in this process: all of it but its start. */
async function command(args: readonly string[]): Promise<Outcome> {
  const said = { stdout: '', stderr: '' };
  const written = (stream: 'stdout' | 'stderr') => {
    const { write } = process[stream];
    process[stream].write = (chunk: string | Uint8Array) => {
      said[stream] += chunk;
      return true;
    };
    return () => {
      process[stream].write = write;
    };
  };
  const restore = [written('stdout'), written('stderr')];
  process.argv = ['node', 'domsched', ...args];
  process.exitCode = undefined;
  try {
    // Runs when it is loaded; what it loads itself stays.
    await import(`/domsched/dist/domsched.js?${commands++}`);
    return { ...said, exitCode: Number(process.exitCode ?? 0) };
  } finally {
    for (const back of restore) back();
    process.exitCode = undefined;
  }
}

async function perform(request: RemoteRequest): Promise<unknown> {
  const options: OperateOptions = { limitMs: PATIENCE_MS };
  if (request.do === 'quit') return undefined;
  if (request.do === 'command') return command(request.args);
  if (request.do === 'detach') return detach(request.domain);
  const entry = await attach(request.domain, request.do === 'attach' && request.unknown === true);
  const { surgeon, guest } = entry;
  switch (request.do) {
    case 'attach':
      return {
        release: guest.kernel.release,
        levels: guest.space.mode.split.length - 1,
        learnedFrom: guest.kernel.learned?.guest,
      };
    case 'processes': {
      const taken = await guest.take({
        pause: request.pause ?? false,
        threads: request.threads ?? false,
        ...LOOK,
      });
      entry.processes = taken.processes;
      return { exact: taken.exact, processes: taken.processes };
    }
    case 'hold': {
      const target = find({ processes: await processesOf(guest, { limitMs: PATIENCE_MS }) }, request.comm);
      const { technique } = request;
      const held = await surgeon.hold(target, { ...options, ...(technique && { techniques: [technique] }) });
      return { state: target.state, ...brief(held) };
    }
    case 'release':
      return brief(await surgeon.release(find(entry, request.comm), options));
    case 'renice':
      return brief(await surgeon.renice(find(entry, request.comm), request.nice, options));
    case 'cycle': {
      // Holds and releases without a rest, for whoever wants to be in the middle of an edit.
      const end = performance.now() + request.forMs;
      let rounds = 0;
      const process = find(entry, request.comm);
      try {
        for (; performance.now() < end; rounds++) {
          writeFileSync('/host/rounds', `${rounds}`);
          await surgeon.hold(process, { limitMs: CYCLE_PATIENCE_MS });
          await surgeon.release(process, { limitMs: CYCLE_PATIENCE_MS });
        }
      } catch (error) {
        return { rounds, ...failure(error) };
      }
      return { rounds };
    }
  }
}

function failure(error: unknown): { code: string; message: string } {
  const { code = 'Error', message } = error as { code?: string; message: string };
  return { code, message };
}

function replacer(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
}

const port = await open(process.argv[2]!, 'r+');
let text = '';
for (;;) {
  const end = text.indexOf('\n');
  if (end < 0) {
    const { bytesRead, buffer } = await port.read({ buffer: Buffer.alloc(65_536), position: null });
    // Nobody is connected outside.
    if (bytesRead === 0) await sleep(100);
    text += buffer.toString('utf8', 0, bytesRead);
    continue;
  }
  const request = JSON.parse(text.slice(0, end)) as RemoteRequest;
  text = text.slice(end + 1);
  if (request.do === 'quit') break;
  let answer: RemoteAnswer;
  try {
    answer = { id: request.id, value: await perform(request) };
  } catch (error) {
    answer = { id: request.id, error: failure(error) };
  }
  let left = Buffer.from(`${JSON.stringify(answer, replacer)}\n`);
  while (left.length > 0) left = left.subarray((await port.write(left)).bytesWritten);
}
for (const name of [...attached.keys()]) await detach(name);
