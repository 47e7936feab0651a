/**
 * The memory of a paused O(1) guest, for tests that look into it or break it. Deliberately apart from domsched's own
 * runtime, so that both can be held against each other: addresses come from System.map, offsets from the measured
 * facts, and all of it is plain arithmetic on the guest's two linear maps.
 */
import { type FileHandle, open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { type O1Guest, type O1Variant, readSystemMap } from './o1.ts';

const kernelMap = 0xffffffff80000000n;
const directMap = 0xffff810000000000n;

interface KnownMember {
  name: string;
  offset: number;
  size: number;
}

export class O1Memory {
  readonly #file: FileHandle;
  readonly #symbols: Map<string, bigint>;
  readonly #structs: Record<string, { size: number; fields: KnownMember[] }>;

  private constructor(
    file: FileHandle,
    symbols: Map<string, bigint>,
    structs: Record<string, { size: number; fields: KnownMember[] }>,
  ) {
    this.#file = file;
    this.#symbols = symbols;
    this.#structs = structs;
  }

  static async open(guest: O1Guest, variant: Exclude<O1Variant, 'base-dwarf5' | 'evil'>): Promise<O1Memory> {
    const facts = path.resolve(
      import.meta.dirname,
      `../../kernels/facts/linux-2.6.16-x86_64-${variant}.json`,
    );
    const { structs } = JSON.parse(await readFile(facts, 'utf8'));
    return new O1Memory(await open(guest.memoryFile, 'r+'), await readSystemMap(variant), structs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  symbol(name: string): bigint {
    const address = this.#symbols.get(name);
    if (address === undefined) throw new Error(`no symbol ${name}`);
    return address;
  }

  field(struct: string, member: string): KnownMember {
    const field = this.#structs[struct]?.fields.find(({ name }) => name === member);
    if (!field) throw new Error(`no ${struct}.${member} in the facts`);
    return field;
  }

  offset(struct: string, member: string): bigint {
    return BigInt(this.field(struct, member).offset);
  }

  /** Offset in the memory's file. */
  physical(address: bigint): number {
    return Number(address >= kernelMap ? address - kernelMap : address - directMap);
  }

  async bytes(address: bigint, size: number): Promise<Buffer> {
    const { buffer, bytesRead } = await this.#file.read(Buffer.alloc(size), 0, size, this.physical(address));
    if (bytesRead !== size) throw new Error(`address ${address.toString(16)} is outside RAM`);
    return buffer;
  }

  async read(address: bigint, size = 8): Promise<bigint> {
    return (await this.bytes(address, size))
      .reverse()
      .reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
  }

  async write(address: bigint, value: bigint, size = 8): Promise<void> {
    const buffer = Buffer.alloc(8);
    buffer.writeBigUInt64LE(BigInt.asUintN(64, value));
    await this.#file.write(buffer, 0, size, this.physical(address));
  }

  get(struct: string, address: bigint, member: string): Promise<bigint> {
    const { offset, size } = this.field(struct, member);
    return this.read(address + BigInt(offset), size);
  }

  set(struct: string, address: bigint, member: string, value: bigint): Promise<void> {
    const { offset, size } = this.field(struct, member);
    return this.write(address + BigInt(offset), value, size);
  }

  /** The run queue of a CPU. */
  async runqueue(cpu: number): Promise<bigint> {
    const pda = await this.read(this.symbol('_cpu_pda') + 8n * BigInt(cpu));
    return BigInt.asUintN(
      64,
      this.symbol('per_cpu__runqueues') + (await this.get('x8664_pda', pda, 'data_offset')),
    );
  }

  /** Every task of the list that starts at init_task, by its `comm`. */
  async tasks(): Promise<Map<string, bigint>> {
    const tasks = this.offset('task_struct', 'tasks');
    const head = this.symbol('init_task') + tasks;
    const found = new Map<string, bigint>();
    for (
      let entry = await this.read(head);
      entry !== head && found.size < 100;
      entry = await this.read(entry)
    ) {
      const comm = await this.bytes(entry - tasks + this.offset('task_struct', 'comm'), 16);
      found.set(comm.toString('latin1').replace(/\0.*$/s, ''), entry - tasks);
    }
    return found;
  }

  /** Is the CPU's run-queue lock free? */
  async unlocked(rq: bigint): Promise<boolean> {
    return BigInt.asIntN(32, await this.read(rq, 4)) === 1n;
  }
}
