import { open, rm, truncate } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { FileMapping } from '../../../runtime/hypervisor/process-memory.ts';
import { QemuDomain } from '../../../runtime/hypervisor/qemu/domain.ts';
import { REGISTERS } from './qemu-output.ts';
import { GREETING, ScriptedServer } from './qmp-server.ts';

const MEMORY = 1024 * 1024;

/**
 * A QEMU that is this process: it serves QMP, and its guest's RAM is a file that we have mapped. It does what QEMU does
 * with stop, cont and the events that come of them; a test changes its state, or says when something happens.
 */
export class FakeQemu implements AsyncDisposable {
  /** Of `query-status`. */
  status = 'running';
  /** Answer to `query-migrate`. */
  migration: Record<string, unknown> = {};
  jobs: unknown[] = [];
  /** Whether `stop` turns S3 into a pause, and `cont` brings it back, as in QEMU since 9.0. */
  stopsSleep = false;
  #slept = false;
  /** Of its only vCPU. */
  thread = process.pid;
  /** Commands that came, in order. */
  readonly commands: string[] = [];
  /** Called after a command was carried out, before its answer is sent. */
  onCommand: (command: string) => void = () => undefined;
  /** What it says of its memory; a liar says something else. */
  memory: { address: number; mtree?: string; memPath?: string; constant?: true };
  readonly file: string;
  readonly mapping: FileMapping;
  #server!: ScriptedServer;
  #client: Socket | undefined;

  private constructor(file: string) {
    this.file = file;
    this.mapping = new FileMapping(file);
    this.memory = { address: this.mapping.address };
  }

  static async start(): Promise<FakeQemu> {
    const file = path.join(tmpdir(), `domsched-ram-${process.pid}-${Math.random()}`);
    await (await open(file, 'wx', 0o600)).close();
    await truncate(file, MEMORY);
    const qemu = new FakeQemu(file);
    qemu.#server = await ScriptedServer.start(
      (socket) => {
        qemu.#client = socket;
        socket.write(GREETING);
      },
      (socket, line) => qemu.#serve(socket, line),
    );
    return qemu;
  }

  get sockets() {
    return { qmp: this.#server.path };
  }

  attach(): Promise<QemuDomain> {
    return QemuDomain.attach(this.sockets, `qemu:unix:${this.#server.path}`);
  }

  /** Says on the monitor that something happened. */
  event(event: string): void {
    this.#client?.write(
      `${JSON.stringify({ event, data: {}, timestamp: { seconds: 0, microseconds: 0 } })}\r\n`,
    );
  }

  stop(status = 'paused'): void {
    const sleeps = this.stopsSleep && this.status === 'suspended';
    if (this.status !== 'running' && !sleeps) return;
    this.#slept = sleeps;
    this.status = status;
    this.event('STOP');
  }

  /** Of another client, or ours. One that runs already says so in two events. */
  cont(): void {
    if (this.status === 'suspended') return;
    if (this.status === 'running') this.event('STOP');
    this.event('RESUME');
    this.status = this.#slept ? 'suspended' : 'running';
    this.#slept = false;
  }

  /** Ends the connection, as no QEMU does that is well. */
  hangUp(): void {
    this.#client?.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
    this.mapping.close();
    await rm(this.file, { force: true });
  }

  #serve(socket: Socket, line: string): void {
    const { execute, arguments: args = {}, id } = JSON.parse(line);
    this.commands.push(execute);
    const result = this.#answer(execute, args);
    this.onCommand(execute);
    socket.write(`${JSON.stringify({ return: result, id })}\r\n`);
  }

  #answer(command: string, args: Record<string, unknown>): unknown {
    if (command === 'stop') this.stop();
    if (command === 'cont') this.cont();
    if (command === 'query-name') return { name: 'fake' };
    if (command === 'query-status') return { status: this.status, running: this.status === 'running' };
    if (command === 'query-migrate') return this.migration;
    if (command === 'query-jobs') return this.jobs;
    if (command === 'query-cpus-fast')
      return [{ 'cpu-index': 0, 'thread-id': this.thread, 'qom-path': '/machine/cpu' }];
    if (command === 'query-memdev') return [{ id: 'ram', share: true, size: MEMORY }];
    if (command === 'qom-get')
      return args.property === 'mem-path'
        ? (this.memory.memPath ?? this.file)
        : args.property === 'phys-bits'
          ? 40
          : 0;
    if (command === 'human-monitor-command') return this.#human(String(args['command-line']));
    return {};
  }

  #human(line: string): string {
    if (line.startsWith('info registers')) return REGISTERS;
    if (line.startsWith('info mtree')) return this.memory.mtree ?? memoryMap([0, MEMORY]);
    const start = this.memory.constant ? 0 : Number(/^gpa2hva (0x[0-9a-f]+)$/.exec(line)?.[1] ?? 0);
    return `Host virtual address for 0x0 (ram) is 0x${(this.memory.address + start).toString(16)}\r\n`;
  }
}

/** What `info mtree -f` prints of ranges of RAM, each from its first byte to the one after its last. */
export function memoryMap(...ranges: readonly (readonly [number, number])[]): string {
  const hex = (value: number) => value.toString(16).padStart(16, '0');
  const lines = ranges.map(
    ([start, end]) => `  ${hex(start)}-${hex(end - 1)} (prio 0, ram): ram @${hex(start)}`,
  );
  return ['FlatView #0', ' AS "memory", root: system', ' Root memory region: system', ...lines, ''].join(
    '\r\n',
  );
}
