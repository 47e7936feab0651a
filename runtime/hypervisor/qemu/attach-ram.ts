import { DomschedError } from '../../error.ts';
import { FRAME_SIZE } from '../frame.ts';
import { addressOf, type FileMapping, ProcessMemory, RangeList } from '../process-memory.ts';
import { fileOf, keyOf } from './memory-file.ts';
import { parseMemoryMap, type RamRange } from './memory-map.ts';
import { filePlace, mappingsOf, processMaps } from './process-maps.ts';
import { asRecord, type QmpClient } from './qmp-client.ts';
import type { RamSegment, RamSource } from './ram.ts';

/** A piece of the guest's memory, and its address in QEMU's process by QEMU's own word. */
interface PlacedRange extends RamRange {
  readonly address: number;
}

/**
 * Finds a guest's RAM, in a memory file that we map as well or else in QEMU's process.
 *
 * A QEMU that its guest has taken over may lie. So we open nothing by a name that it tells: the file must be the one
 * that the kernel has mapped, shared and writable, in that very process, and all of the guest must be inside the
 * process's mappings. Such a QEMU can only make us write what it can write itself.
 *
 * @param previous sources of an earlier look, whose mappings are used again
 * @throws DomschedError `protocol`, `timeout`, `host-unreachable`
 */
export async function attachRam(
  client: QmpClient,
  pid: number,
  previous: readonly RamSource[] = [],
): Promise<RamSource[]> {
  const ranges: PlacedRange[] = [];
  const listed = parseMemoryMap(await client.human('info mtree -f'), await memoryBackends(client));
  for (const range of listed) ranges.push({ ...range, address: await hostAddress(client, range) });
  checkApart(ranges, ({ start }) => start);
  checkApart(ranges, ({ address }) => address);
  const maps = processMaps(pid);
  const process: RamSegment[] = [];
  const files = new Map<string, { mapping: FileMapping; segments: RamSegment[]; inProcess: RamSegment[] }>();
  const known = previous.flatMap(({ mapping }) => mapping ?? []);
  try {
    for (const { start, length, address } of ranges) {
      const segment = { first: start / FRAME_SIZE, count: length / FRAME_SIZE };
      const mappings = maps.length > 0 ? mappingsOf(maps, address, length) : [];
      const usable = mappings?.every(({ readable, writable }) => readable && writable) ?? false;
      if (mappings === undefined || !usable) throw notThere(pid, start);
      const place = mappings.length > 0 ? filePlace(mappings, address) : undefined;
      const mapping =
        place && fileOf(pid, place.map, [...known, ...[...files.values()].map((file) => file.mapping)]);
      if (place === undefined || mapping === undefined) {
        process.push({ ...segment, address });
        continue;
      }
      if (place.offset + length > mapping.length) {
        throw new DomschedError('host-unreachable', "a memory file is shorter than the guest's memory", {
          pid,
        });
      }
      const file = files.get(keyOf(mapping)) ?? { mapping, segments: [], inProcess: [] };
      files.set(keyOf(mapping), file);
      file.inProcess.push({ ...segment, address });
      file.segments.push({ ...segment, address: mapping.address + place.offset });
    }
  } catch (error) {
    for (const { mapping } of files.values()) if (!known.includes(mapping)) mapping.close();
    throw error;
  }
  const own = new ProcessMemory();
  const sources: RamSource[] = [...files.values()].map((file) => ({ ...file, memory: own }));
  if (process.length > 0) {
    const memory = new ProcessMemory(pid);
    probe(memory, process[0]!.address);
    sources.push({ memory, segments: process, mapping: undefined, inProcess: process });
  }
  return sources;
}

/** Names of the machine's memory backends. */
async function memoryBackends(client: QmpClient): Promise<Set<string>> {
  const answer = await client.execute('query-memdev');
  const names = (Array.isArray(answer) ? answer : []).map((entry) => asRecord(entry)?.id);
  return new Set(names.filter((name) => typeof name === 'string'));
}

/** @throws DomschedError `protocol` when two ranges overlap, because one edit would then be in two places */
function checkApart(ranges: readonly PlacedRange[], of: (range: PlacedRange) => number): void {
  const sorted = [...ranges].sort((a, b) => of(a) - of(b));
  for (const [i, range] of sorted.entries()) {
    const next = sorted[i + 1];
    if (next === undefined || of(range) + range.length <= of(next)) continue;
    throw new DomschedError(
      'protocol',
      `QEMU says that two pieces of memory are one: at ${of(next).toString(16)}`,
      {
        address: of(next),
      },
    );
  }
}

function notThere(pid: number, start: number): DomschedError {
  const message = `process ${pid} has no memory of its own where QEMU says that ${start.toString(16)} of its guest is`;
  return new DomschedError('protocol', message, { pid });
}

async function hostAddress(client: QmpClient, range: RamRange): Promise<number> {
  const output = await client.human(`gpa2hva 0x${range.start.toString(16)}`);
  const match = /is 0x([0-9a-f]+)\s*$/.exec(output);
  if (match !== null) return Number(`0x${match[1]}`);
  throw new DomschedError('protocol', `gpa2hva gives no address for ${range.start.toString(16)}`, {
    output: output.slice(0, 200),
  });
}

/** @throws DomschedError `host-unreachable` when we may not read that process */
function probe(memory: ProcessMemory, address: number): void {
  const buffer = new Uint8Array(new ArrayBuffer(FRAME_SIZE));
  const local = new RangeList();
  const remote = new RangeList();
  local.set(0, addressOf(buffer), 8);
  remote.set(0, address, 8);
  if (memory.read(local, 1, remote, 1) === 8) return;
  throw new DomschedError('host-unreachable', `process ${memory.pid} has no memory where QEMU says`, {
    pid: memory.pid,
  });
}
