/**
 * A reader that was taken over: with a broker beside it and no rights of its own, it tries what it must not be able to do,
 * and prints how each try ended. Arguments: the process of one machine, and process and QMP socket of another.
 */
import { once } from 'node:events';
import { openSync, readdirSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { createConnection } from 'node:net';
import process from 'node:process';
import koffi from 'koffi';
import { MOST_WORDS, type RequestOf } from '../../runtime/broker/protocol.ts';
import { BrokerClient } from '../../runtime/brokered/client.ts';
import type { BrokeredDomain } from '../../runtime/brokered/domain.ts';
import { dropRoot } from '../../runtime/brokered/drop-root.ts';
import { BrokeredHost } from '../../runtime/brokered/host.ts';
import { FRAME_SIZE } from '../../runtime/hypervisor/frame.ts';
import { FrameBatch } from '../../runtime/hypervisor/frame-batch.ts';
import { addressOf, ProcessMemory, RangeList } from '../../runtime/hypervisor/process-memory.ts';
import { seize } from '../../runtime/hypervisor/vmm/ptrace.ts';

const [one = 0, two = 0] = process.argv.slice(2, 4).map(Number);
const socket = process.argv[4]!;
const places = ['pid:', `qemu:unix:${socket}`];
await using client = BrokerClient.start(places);
dropRoot();
const said: Record<string, unknown> = {};
const attempt = async (name: string, work: () => unknown) => {
  try {
    said[name] = `done: ${await work()}`;
  } catch (error) {
    said[name] = (error as { code?: string }).code ?? String(error);
  }
};
const status = readFileSync('/proc/self/status', 'latin1');
for (const line of ['Uid', 'CapPrm', 'CapEff', 'NoNewPrivs'])
  said[line] = new RegExp(`^${line}:\\s*(.*)$`, 'm').exec(status)?.[1]?.split('\t').join(' ');

await using host = new BrokeredHost(client, 'pid:');
await using domain = (await host.open(`pid:${one}`)) as BrokeredDomain;
await using monitored = new BrokeredHost(client, places[1]!, 1);
await using other = (await monitored.open(socket)) as BrokeredDomain;
// The first that was opened.
const machine = 1;
const region = domain.frames.regions()[0]!;
const word = (frame: number, offset = 8, of = domain) => {
  const batch = new FrameBatch();
  batch.add(frame as never, offset, 8);
  of.frames.read(batch);
  return Buffer.from(batch.bytes.subarray(0, 8)).toString('hex');
};
said.reads = domain.frames.regions().reduce((sum, { count }) => sum + count * FRAME_SIZE, 0);

await attempt('opens its memory for writing', () => openSync(`/proc/${one}/mem`, 'r+'));
await attempt('opens its mappings for writing', () => {
  const [file = ''] = readdirSync(`/proc/${one}/map_files`);
  return openSync(`/proc/${one}/map_files/${file}`, 'r+');
});
const isOfMachine = (fd: string) => {
  try {
    return /^\/proc\/\d+\/(mem|maps|pagemap)$/.test(readlinkSync(`/proc/self/fd/${fd}`));
  } catch {
    return false;
  }
};
const files = readdirSync('/proc/self/fd').filter(isOfMachine);
said.files = files.length;
for (const fd of files) {
  await attempt(`opens ${readlinkSync(`/proc/self/fd/${fd}`).split('/').at(-1)} anew`, () =>
    openSync(`/proc/self/fd/${fd}`, 'r+'),
  );
  await attempt('writes by what was handed over', () => writeSync(Number(fd), Buffer.alloc(8), 0, 8, 4096));
}
await attempt('process_vm_writev', () => {
  const bytes = new Uint8Array(new ArrayBuffer(4096));
  const [local, remote] = [new RangeList(), new RangeList()];
  local.set(0, addressOf(bytes), 8);
  remote.set(0, addressOf(bytes), 8);
  return new ProcessMemory(one).write(local, 1, remote, 1);
});
await attempt('traces it', () => {
  const errno = seize(one);
  if (errno !== 0)
    throw Object.assign(new Error('ptrace'), { code: koffi.errno() === 1 ? 'EPERM' : String(errno) });
});
await attempt('connects to its monitor', () => once(createConnection(socket), 'connect'));
await attempt('opens another socket', () => client.ask({ op: 'open', host: 1, domain: `${socket}.other` }));
await attempt('opens by its process what has a monitor', () =>
  client.ask({ op: 'open', host: 0, domain: `pid:${two}` }),
);
await attempt('signals it', () => process.kill(one, 'SIGSTOP'));
await attempt('signals the broker', () => process.kill(client.pid!, 'SIGSTOP'));
await attempt('becomes root', () => process.setuid!(0));
await attempt('writes frames', () => domain.writeFrames.write([]));

const old = word(region.first + 16);
const wanted = old === '0123456789abcdef' ? '1123456789abcdef' : '0123456789abcdef';
const edit = (change: Partial<RequestOf<'edit'>> = {}) =>
  client.ask({
    op: 'edit',
    machine,
    title: 'try',
    words: [{ frame: region.first + 16, offset: 8, old, new: wanted }],
    still: [],
    harmlessInParts: true,
    ...change,
  });
const words = (change: object) => [{ frame: region.first + 16, offset: 8, old, new: wanted, ...change }];
await attempt('edits what runs', () => edit());
await client.ask({ op: 'pause', machine, use: 'look' });
await attempt('edits in the pause of a look', () => edit());
await client.ask({ op: 'resume', machine });
await client.ask({ op: 'pause', machine, use: 'edit' });
const last = domain.frames.regions().at(-1)!;
await attempt('another old word', () => edit({ words: words({ old: wanted, new: old }) }));
await attempt('outside of RAM', () =>
  edit({ words: words({ frame: last.first + last.count, old: '00'.repeat(8) }) }),
);
await attempt('one of two outside of RAM', () =>
  edit({ words: [...words({}), ...words({ frame: last.first + last.count, old: '00'.repeat(8) })] }),
);
await attempt('too many words', () =>
  edit({ words: Array.from({ length: MOST_WORDS + 1 }, (_, i) => words({ frame: region.first + i })[0]!) }),
);
await attempt('across two frames', () => edit({ words: words({ offset: FRAME_SIZE - 4 }) }));
await attempt('two words that overlap', () =>
  edit({ words: [...words({}), ...words({ offset: 8, old: old.slice(0, 2), new: '77' })] }),
);
await attempt('of another machine', () => edit({ machine: 2 }));
await attempt('RAM elsewhere than its monitor tells', () =>
  client.ask({ op: 'place', machine: 2, where: { blocks: [{ start: 4096, length: 4096 }], low: 4096 } }),
);
await attempt('of a machine that is not open', () => edit({ machine: 3 }));
await attempt('that is not harmless in parts', () => edit({ harmlessInParts: undefined }));
await attempt('RAM elsewhere', () =>
  client.ask({ op: 'place', machine, where: { blocks: [{ start: 4096, length: 2 ** 29 }], low: 2 ** 29 } }),
);
said.unchanged = word(region.first + 16) === old;
// That all of this is refused for its reason alone: the very same edit is made, and taken back.
await attempt('the edit itself', () => edit());
said.changed = word(region.first + 16) === wanted;
await attempt('back', () => edit({ words: words({ old: wanted, new: old }) }));
said.back = word(region.first + 16) === old;
await client.ask({ op: 'resume', machine });

// By the monitor: the same words of the other guest, of which each part need not be harmless.
const there = other.frames.regions()[0]!.first + 16;
const before = word(there, 8, other);
const after = before === '0123456789abcdef' ? '1123456789abcdef' : '0123456789abcdef';
const byMonitor = (from: string, to: string) =>
  edit({ machine: 2, words: [{ frame: there, offset: 8, old: from, new: to }], harmlessInParts: undefined });
said.registers = (await other.registers!.read()).length;
await client.ask({ op: 'pause', machine: 2, use: 'edit' });
await attempt('another old word by the monitor', () => byMonitor(after, before));
await attempt('the edit by the monitor', () => byMonitor(before, after));
said['changed by the monitor'] = word(there, 8, other) === after;
await attempt('back by the monitor', () => byMonitor(after, before));
await client.ask({ op: 'resume', machine: 2 });
await attempt('records another place', () =>
  client.ask({
    op: 'record',
    journal: 'held',
    record: {
      connection: 'dump:/etc/shadow',
      domain: 'dump:/etc/shadow',
      name: 'x',
      buildId: null,
      pid: 1,
      comm: 'x',
      address: '0x0',
      startTimeNs: 1,
      since: 'now',
    },
  }),
);
await attempt('asks for what there is not', () => client.ask({ op: 'exec' } as never));
process.stdout.write(`${JSON.stringify(said)}\n`);
