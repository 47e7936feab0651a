import { DomschedError } from '../../error.ts';
import { isAlive } from '../../host-process.ts';
import { OpenDomains } from '../open-domains.ts';
import { listeningProcess } from '../qemu/qemu-process.ts';
import type { Domain, DomainListing, Host } from '../types.ts';
import { attachRam } from './attach-ram.ts';
import { ramBytes } from './command-line.ts';
import { identityOf, notOurs, ProcessDomain, requireMachine, stateOf, vcpuCount } from './domain.ts';
import { type MachineProcess, MachineSearch } from './machine-process.ts';
import { ramBlocks } from './ram-blocks.ts';

/** The virtual machines of this host, found by their processes: one of them, or all. */
export class ProcessHost implements Host {
  readonly hypervisor = 'qemu';
  readonly connection: string;
  readonly #pid: number | undefined;
  readonly #sockets: () => readonly string[];
  readonly #search = new MachineSearch();
  readonly #open = new OpenDomains<ProcessDomain>();

  /**
   * @param pid the one machine that is meant; all when left out
   * @param sockets QMP sockets of other hosts; their machines are left to them, because a monitor can do more
   */
  constructor(connection: string, pid?: number, sockets: () => readonly string[] = () => []) {
    this.connection = connection;
    this.#pid = pid;
    this.#sockets = sockets;
  }

  async list(): Promise<readonly DomainListing[]> {
    const machines = this.#machines();
    const foreign = this.#search.foreign.filter(({ pid }) => this.#isMeant(pid));
    const all: DomainListing[] = [
      ...machines.map((machine) => ({
        identity: identityOf(machine),
        state: stateOf(machine),
        vcpus: vcpuCount(machine),
        memoryBytes: ramBytes(machine.args) ?? ramBlocks(machine.pid)[0]?.length ?? 0,
      })),
      ...foreign.map((machine) => ({
        identity: identityOf({ ...machine, isQemu: true }),
        error: notOurs(machine),
      })),
    ];
    if (all.length > 0 || this.#pid === undefined || this.#served().has(this.#pid)) return all;
    const connection = `pid:${this.#pid}`;
    const identity = { id: connection, name: String(this.#pid), hypervisor: 'qemu', connection } as const;
    try {
      requireMachine(this.#pid);
    } catch (error) {
      if (error instanceof DomschedError) return [{ identity, error }];
      throw error;
    }
    return [];
  }

  ids(): readonly string[] {
    return this.#machines().map(({ pid }) => `pid:${pid}`);
  }

  async open(id: string): Promise<Domain> {
    const before = await this.#open.get(id);
    if (before !== undefined) return before;
    const pid = Number(/^pid:(\d+)$/.exec(id)?.[1] ?? Number.NaN);
    const machine = this.#machines().find((each) => each.pid === pid);
    if (machine === undefined) {
      throw new DomschedError('domain-not-found', `there is no virtual machine ${id}`, { domain: id });
    }
    return this.#open.add(id, attach(machine));
  }

  close(): Promise<void> {
    return this.#open.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #machines(): readonly MachineProcess[] {
    const served = this.#served();
    return this.#search.find().filter(({ pid }) => !served.has(pid) && this.#isMeant(pid));
  }

  #isMeant(pid: number): boolean {
    return this.#pid === undefined || this.#pid === pid;
  }

  /** Machines that another host reaches by a socket. */
  #served(): ReadonlySet<number> {
    return new Set(this.#sockets().flatMap((socket) => listeningProcess(socket, undefined) ?? []));
  }
}

/** @throws DomschedError as {@link attachRam} */
function attach(machine: MachineProcess): ProcessDomain {
  const ram = attachRam(machine);
  // We opened the memory of that very process: a later one with its number would have another start time.
  if (isAlive(machine)) return new ProcessDomain(machine, ram);
  ram.close();
  throw new DomschedError('domain-gone', `${machine.name} has ended`, { domain: machine.name });
}
