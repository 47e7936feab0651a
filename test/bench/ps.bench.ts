/**
 * `node test/bench/ps.bench.ts [--rounds N]`: listing the processes of a guest with 200 tasks.
 *
 * 1. In one process, on the live guest, paused: our snapshot, warm and from nothing, against the same words read one
 *    by one with a fresh translation each, the paper's way (Table 1).
 * 2. As commands, on one memory image: `domsched ps` against a drgn script that prints the same columns.
 *
 * Prints tables and writes `.cache/bench/ps.json`. Exit code 0 even when a target is missed: a busy machine is no bug.
 */
import { copyFile, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { FRAME_SIZE, guestFrame } from '../../runtime/hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../../runtime/hypervisor/frame-batch.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { advance, type GuestVirtual } from '../../runtime/memory/address.ts';
import { bootDebian, type LiveGuest } from '../live/guest.ts';
import { TestLayouts } from '../live/ps-layouts.ts';
import { type BenchTarget, median, race, raceTable, record, targetTable } from './harness.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '5' } } });
const rounds = Number(values.rounds);
const SLEEPERS = 140;
/** Members that `ps` shows or needs to get there. */
const WORDS = [
  ...[
    '__state',
    'exit_state',
    'flags',
    'on_cpu',
    'on_rq',
    'static_prio',
    'policy',
    'mm',
    'pid',
    'tgid',
    'comm',
  ],
  ...['real_parent', 'group_leader', 'signal', 'start_time', 'utime', 'stime', 'se.sum_exec_runtime'],
  ...['prev_cputime.utime', 'prev_cputime.stime', 'tasks.next', 'tasks.prev', 'thread_node.next'],
];
const SIGNAL_WORDS = [
  'thread_head.next',
  'nr_threads',
  'utime',
  'stime',
  'sum_sched_runtime',
  'prev_cputime.utime',
];

/** What `ps` prints, by drgn's helpers. */
const DRGN = `
import sys
import drgn
from drgn.helpers.linux.pid import for_each_task
prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])
for task in for_each_task(prog):
    if task.pid.value_() != task.tgid.value_():
        continue
    signal = task.signal
    print(
        task.pid.value_(),
        task.real_parent.tgid.value_(),
        task.comm.string_().decode(errors='replace'),
        task.member_('__state').value_(),
        task.exit_state.value_(),
        task.static_prio.value_() - 120,
        task.policy.value_(),
        task.utime.value_() + signal.utime.value_(),
        task.stime.value_() + signal.stime.value_(),
        task.se.sum_exec_runtime.value_() + signal.sum_sched_runtime.value_(),
        signal.nr_threads.value_(),
        task.flags.value_() & 0x200000,
    )
`;

const programs = Array.from(
  { length: SLEEPERS },
  (_, i) => ({ kind: 'sleeper', name: `sleeper-${i}` }) as const,
);
await using machine = await bootDebian({ kernel: 'debian-6.1-cloud', programs, cpu: 'qemu64', memory: 512 });
await using layouts = await TestLayouts.of(machine.kernel.vmlinux);
const folder = await mkdtemp(path.join(tmpdir(), 'ps-bench-'));
try {
  const inProcess = await compareInProcess();
  const image = await memoryImage(machine, inProcess.places, folder);
  const commands = await compareCommands(image, folder);
  const targets: BenchTarget[] = [
    {
      claim: `ps of ${inProcess.tasks} tasks against word by word with fresh translations, share of its CPU time`,
      found: (100 * inProcess.warm) / inProcess.wordByWord,
      limit: 5,
      unit: '%',
    },
    {
      claim: 'domsched ps against drgn, share of its CPU time',
      found: (100 * commands[0]!.median.cpu) / commands[1]!.median.cpu,
      limit: 100,
      unit: '%',
    },
  ];
  console.log(targetTable(targets));
  const { places: _, ...figures } = inProcess;
  await record('ps', { inProcess: figures, commands, targets });
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function compareInProcess() {
  await using domain = await QemuDomain.attach(machine.sockets, machine.connection);
  const guest = await Guest.attach(domain, layouts.known);
  await using _pause = await domain.pause.acquire();
  const { processes } = guest.snapshot({ threads: true });
  const warm: number[] = [];
  const wordByWord: number[] = [];
  let words = 0;
  for (let round = -2; round < rounds; round++) {
    const ours = cpu(() => guest.snapshot(), 20);
    const paper = cpu(() => {
      words = readWordByWord(
        guest,
        processes.map(({ address }) => address),
      );
    }, 1);
    if (round < 0) continue;
    warm.push(ours);
    wordByWord.push(paper);
  }
  const pages = (address: GuestVirtual) => address - (address % 0x1000n);
  const text = pages(guest.symbol('_text')!);
  const places: Places = {
    text,
    end: pages(guest.symbol('_end')!),
    textPhysical: Number(text - 0xffff_ffff_8000_0000n + guest.kernel.physBase),
    directMap: guest.space.readU64(guest.symbol('page_offset_base')!),
  };
  const result = {
    places,
    tasks: processes.length,
    words,
    warm: median(warm),
    wordByWord: median(wordByWord),
  };
  console.log(
    `${result.tasks} tasks, CPU time: snapshot ${result.warm.toFixed(0)} µs; ${words} words one by one ` +
      `${result.wordByWord.toFixed(0)} µs (${(result.wordByWord / result.warm).toFixed(0)} times as much)`,
  );
  return result;
}

/** Where the kernel is, for the headers of a core. */
interface Places {
  readonly text: bigint;
  readonly end: bigint;
  readonly textPhysical: number;
  readonly directMap: bigint;
}

/** Each word: a walk over the page tables, entry by entry out of the guest, then the word itself. @returns words */
function readWordByWord(guest: Guest, tasks: readonly GuestVirtual[]): number {
  const { layout, domain, space } = guest;
  const batch = new FrameBatch();
  const word = (physical: bigint): bigint => {
    batch.clear();
    const index = batch.add(guestFrame(Number(physical >> 12n)), Number(physical & 0xff8n), 8);
    domain.frames.read(batch);
    if (batch.status[index] !== FRAME_STATUS.ok) throw new Error('a word is gone while the guest is paused');
    return batch.view.getBigUint64(batch.positions[index]!, true);
  };
  const levels = space.mode.split.length - 1;
  const read = (address: GuestVirtual): bigint => {
    let table = BigInt(space.root);
    for (let level = levels; level >= 1; level--) {
      const shift = BigInt(12 + 9 * (level - 1));
      const entry = word(table + ((address >> shift) & 0x1ffn) * 8n);
      table = entry & 0x000f_ffff_ffff_f000n;
      const large = level > 1 && (entry & 0x80n) !== 0n;
      if (level > 1 && !large) continue;
      const inside = (1n << shift) - 1n;
      return word((table & ~inside) | (address & inside));
    }
    throw new Error('a kernel without page tables');
  };
  let words = 0;
  for (const task of tasks) {
    let signal = 0n;
    for (const name of WORDS) {
      const value = read(advance(task, layout.field('task_struct', name).offset));
      if (name === 'signal') signal = value;
      words += 1;
    }
    for (const name of SIGNAL_WORDS) {
      read(advance(signal as GuestVirtual, layout.field('signal_struct', name).offset));
      words += 1;
    }
  }
  return words;
}

/** Our own CPU time for one call, in µs. */
function cpu(run: () => unknown, loops: number): number {
  const before = process.cpuUsage();
  for (let i = 0; i < loops; i++) run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / loops;
}

/**
 * An ELF core of the guest's memory, with the note by which drgn knows a Linux kernel: the guest shows where that note
 * is in /sys/kernel/vmcoreinfo.
 */
async function memoryImage(guest: LiveGuest, places: Places, into: string): Promise<string> {
  const [address, size] = (await guest.run('cat /sys/kernel/vmcoreinfo'))
    .trim()
    .split(' ')
    .map((hex) => Number.parseInt(hex, 16));
  const monitor = await guest.monitor();
  const raw = path.join(into, 'raw');
  const ram = 512 * 2 ** 20;
  await monitor.execute('stop');
  await monitor.execute('pmemsave', { val: 0, size: ram, filename: raw }, 300_000);
  await monitor.execute('cont');
  const file = path.join(into, 'core');
  const note = Buffer.alloc(size!);
  const source = await open(raw);
  await source.read(note, 0, note.length, address!);
  // RAM in three pieces, as the kernel's own dumps have it: drgn finds the page tables by the virtual address of the
  // image, which is the middle one.
  const header = Buffer.alloc(64 + 4 * 56);
  header.write('\x7fELF', 0, 'latin1');
  header.set([2, 1, 1], 4);
  header.writeUInt16LE(4, 16);
  header.writeUInt16LE(62, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(64, 52);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(4, 56);
  const start = Math.ceil((header.length + note.length) / FRAME_SIZE) * FRAME_SIZE;
  const program = (
    at: number,
    type: number,
    offset: number,
    virtual: bigint,
    physical: number,
    length: number,
  ) => {
    header.writeUInt32LE(type, at);
    header.writeBigUInt64LE(BigInt(offset), at + 8);
    header.writeBigUInt64LE(virtual, at + 16);
    header.writeBigUInt64LE(BigInt(physical), at + 24);
    header.writeBigUInt64LE(BigInt(length), at + 32);
    header.writeBigUInt64LE(BigInt(length), at + 40);
  };
  const { text, end, directMap, textPhysical } = places;
  const textEnd = textPhysical + Number(end - text);
  program(64, 4, header.length, 0n, 0, note.length);
  program(120, 1, start, directMap, 0, textPhysical);
  program(176, 1, start + textPhysical, text, textPhysical, textEnd - textPhysical);
  program(232, 1, start + textEnd, directMap + BigInt(textEnd), textEnd, ram - textEnd);
  const target = await open(file, 'w');
  await target.write(Buffer.concat([header, note, Buffer.alloc(start - header.length - note.length)]));
  const chunk = Buffer.alloc(2 ** 24);
  for (let done = 0; done < ram; done += chunk.length) {
    await source.read(chunk, 0, chunk.length, done);
    await target.write(chunk);
  }
  await source.close();
  await target.close();
  return file;
}

async function compareCommands(image: string, into: string) {
  const vmlinux = path.join(into, 'vmlinux');
  await copyFile(machine.kernel.vmlinux, vmlinux);
  const script = path.join(into, 'ps.py');
  await writeFile(script, DRGN);
  const env = { XDG_DATA_HOME: layouts.dataHome };
  // The compiled program looks for compiled layouts: those that are shipped, and the user's own.
  const ours = [
    'node',
    path.join(projectDirectory, 'dist', 'domsched.js'),
    'ps',
    '--connect',
    `dump:${image}`,
    '--json',
  ];
  const theirs = ['/usr/bin/python3', script, image, vmlinux];
  const seen = JSON.parse((await execa(ours[0]!, ours.slice(1), { env })).stdout) as {
    pid: number;
    comm: string;
  }[];
  const drgn = (await execa(theirs[0]!, theirs.slice(1))).stdout.trim().split('\n');
  const same =
    seen.length === drgn.length && seen.every(({ pid }) => drgn.some((line) => line.startsWith(`${pid} `)));
  console.log(
    `${seen.length} processes by domsched, ${drgn.length} by drgn: ${same ? 'the same' : 'NOT the same'}`,
  );
  const results = await race(
    [
      { name: 'domsched ps', command: ours as [string, ...string[]], env },
      { name: 'drgn', command: theirs as [string, ...string[]] },
    ],
    { rounds },
  );
  console.log(raceTable(results));
  return results;
}
