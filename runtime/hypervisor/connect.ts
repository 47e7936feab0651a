import path from 'node:path';
import process from 'node:process';
import { DomschedError } from '../error.ts';
import { type ConnectValue, parseBytes, parseConnect } from './connect-value.ts';
import type { DomainListing, Host } from './types.ts';
import { lookForDom0 } from './xen/dom0.ts';

interface Backend {
  /** Form of its `--connect` value. */
  readonly syntax: string;
  readonly options: readonly string[];
  /** @param others hosts opened together with it, before or after */
  open(connection: ConnectValue, spec: string, others: readonly Host[]): Promise<Host>;
}

/** Backends by scheme. Each is loaded on first use, so that nobody needs the native bindings of the others. */
const BACKENDS: Readonly<Record<string, Backend>> = {
  xen: {
    syntax: 'xen:',
    options: [],
    async open({ address }, spec) {
      if (address !== '') throw usage(spec);
      const { XenHost } = await import('./xen/host.ts');
      return XenHost.connect(spec);
    },
  },
  qemu: {
    syntax: 'qemu:unix:/path/qmp.sock[,qtest=unix:/path/qtest.sock][,gdb=unix:/path/gdb.sock]',
    options: ['qtest', 'gdb'],
    async open({ address, options }, spec) {
      const [{ QemuHost }, { findMachines }] = await Promise.all([
        import('./qemu/host.ts'),
        import('./qemu/qmp-host.ts'),
      ]);
      if (address === '') return new QemuHost(spec, () => findMachines());
      const qtest = options.get('qtest');
      const gdb = options.get('gdb');
      const sockets = {
        qmp: unixPath(address, spec),
        ...(qtest !== undefined && { qtest: unixPath(qtest, spec) }),
        ...(gdb !== undefined && { gdb: unixPath(gdb, spec) }),
      };
      return new QemuHost(spec, () => [sockets]);
    },
  },
  pid: {
    syntax: 'pid:NUMBER',
    options: [],
    async open({ address }, spec, others) {
      const pid = /^[1-9]\d{0,9}$/.test(address) ? Number(address) : undefined;
      if (pid === undefined && address !== '') throw usage(spec);
      const { ProcessHost } = await import('./vmm/host.ts');
      // A machine that also has a socket is one domain and belongs to the socket's host: a monitor has registers and a
      // pause that outlives us.
      const sockets = () => others.flatMap((host) => (host.connection.startsWith('qemu:') ? host.ids() : []));
      return new ProcessHost(spec, pid, sockets);
    },
  },
  dump: {
    syntax: 'dump:/path/file[,low=BYTES]',
    options: ['low'],
    async open({ address, options }, spec) {
      const { DumpHost } = await import('./dump/host.ts');
      const given = options.get('low');
      const low = given === undefined ? undefined : parseBytes(given);
      if (address === '' || (low !== undefined && !(Number.isSafeInteger(low) && low > 0))) throw usage(spec);
      return new DumpHost(wholePath(address, spec), low);
    },
  },
};

/**
 * Opens the host that a `--connect` value names, without attaching to a domain.
 * @throws DomschedError `usage` when it names none
 */
export async function connect(spec: string, others: readonly Host[] = []): Promise<Host> {
  const value = parseConnect(spec);
  const backend = value && Object.hasOwn(BACKENDS, value.scheme) ? BACKENDS[value.scheme] : undefined;
  if (value === undefined || backend === undefined) throw usage(spec);
  if ([...value.options.keys()].some((key) => !backend.options.includes(key))) throw usage(spec);
  return backend.open(value, spec, others);
}

/**
 * Opens every named host or, without names, every reachable one.
 * @throws DomschedError `usage`
 */
export async function connectAll(specs: readonly string[]): Promise<Hosts> {
  const wanted = specs.length > 0 ? specs : reachable();
  const hosts: Host[] = [];
  try {
    for (const spec of wanted) hosts.push(await connect(spec, hosts));
    return new Hosts(hosts);
  } catch (error) {
    await Promise.allSettled(hosts.map((host) => host.close()));
    throw error;
  }
}

/**
 * Default places of domains: those in DOMSCHED_CONNECT, separated by spaces; otherwise Xen's in a dom0, QEMU's with a
 * socket of ours, and all other processes that run one.
 */
function reachable(): string[] {
  const places = process.env.DOMSCHED_CONNECT?.split(/\s+/).filter((place) => place !== '') ?? [];
  if (places.length > 0) return places;
  return [...(lookForDom0().dom0 ? ['xen:'] : []), 'qemu:', 'pid:'];
}

/** A domain, and the host that lists it. */
export interface HostListing {
  readonly host: Host;
  readonly listing: DomainListing;
}

/** Treats several hosts as one. */
export class Hosts implements AsyncDisposable {
  readonly all: readonly Host[];

  constructor(hosts: readonly Host[]) {
    this.all = hosts;
  }

  /** Every domain of every host. If some hosts fail, the others are still listed; it throws only if none is left. */
  async list(): Promise<HostListing[]> {
    const results = await Promise.allSettled(
      this.all.map(async (host) => (await host.list()).map((listing) => ({ host, listing }))),
    );
    const failed = results.filter((result) => result.status === 'rejected');
    if (failed.length > 0 && failed.length === results.length) throw failed[0]!.reason;
    return results.flatMap((result) => (result.status === 'fulfilled' ? result.value : []));
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.all.map((host) => host.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function unixPath(address: string, spec: string): string {
  if (!address.startsWith('unix:') || address === 'unix:') throw usage(spec);
  return wholePath(address.slice('unix:'.length), spec);
}

function wholePath(file: string, spec: string): string {
  if (!file.startsWith('~')) return path.resolve(file);
  const message = `--connect ${spec}: the shell replaces ~ at the beginning of a word only; write the whole path, or ./~`;
  throw new DomschedError('usage', message, { connect: spec });
}

function usage(spec: string): DomschedError {
  const known = Object.values(BACKENDS).map(({ syntax }) => syntax);
  const comma = spec.includes(',') ? '. A comma in a path is written twice' : '';
  const message = `--connect ${spec} is none of: ${known.join('; ')}${comma}`;
  return new DomschedError('usage', message, { connect: spec });
}
