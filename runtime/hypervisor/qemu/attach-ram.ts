import { statSync } from 'node:fs';
import { DomschedError } from '../../error.ts';
import { FRAME_SIZE } from '../frame.ts';
import { addressOf, FileMapping, ProcessMemory, RangeList } from '../process-memory.ts';
import { blockName, parseMemoryMap, type RamRange } from './memory-map.ts';
import { mappingAt } from './qemu-process.ts';
import { asRecord, type QmpClient } from './qmp-client.ts';
import type { RamSegment, RamSource } from './ram.ts';

/**
 * Finds out where a guest's RAM is: in a memory file that we map as well, else in the process of QEMU.
 * @param previous sources of an earlier look, whose mappings are used again
 * @throws DomschedError `protocol`, `timeout`, `host-unreachable`
 */
export async function attachRam(
  client: QmpClient,
  pid: number,
  previous: readonly RamSource[] = [],
): Promise<RamSource[]> {
  const backends = await memoryBackends(client);
  const ranges = parseMemoryMap(await client.human('info mtree -f'), new Set(backends.keys()));
  const process: RamSegment[] = [];
  const files = new Map<string, { mapping: FileMapping; segments: RamSegment[] }>();
  const known = new Map(
    previous.flatMap(({ mapping }) => (mapping ? [[mapping.path, mapping] as const] : [])),
  );
  const opened: FileMapping[] = [];
  try {
    for (const range of ranges) {
      const address = await hostAddress(client, range);
      const segment = { first: range.start / FRAME_SIZE, count: range.length / FRAME_SIZE };
      const path = backends.get(blockName(range.block)) ?? null;
      const offset = path === null ? undefined : offsetInFile(path, pid, address);
      if (path === null || offset === undefined) {
        process.push({ ...segment, address });
        continue;
      }
      let file = files.get(path);
      if (file === undefined) {
        const mapping = known.get(path) ?? new FileMapping(path);
        if (!known.has(path)) opened.push(mapping);
        file = { mapping, segments: [] };
        files.set(path, file);
      }
      if (offset + range.length > file.mapping.length) {
        throw new DomschedError(
          'host-unreachable',
          `memory file ${path} is shorter than the guest's memory`,
          { path },
        );
      }
      file.segments.push({ ...segment, address: file.mapping.address + offset });
    }
  } catch (error) {
    for (const mapping of opened) mapping.close();
    throw error;
  }
  const own = new ProcessMemory();
  const sources: RamSource[] = [...files.values()].map((file) => ({ ...file, memory: own }));
  if (process.length > 0) {
    const memory = new ProcessMemory(pid);
    probe(memory, process[0]!.address);
    sources.push({ memory, segments: process, mapping: undefined });
  }
  return sources;
}

/** Backends by name, with the path of the file for those that are a file shared with QEMU. */
async function memoryBackends(client: QmpClient): Promise<Map<string, string | null>> {
  const answer = await client.execute('query-memdev');
  const backends = new Map<string, string | null>();
  for (const entry of Array.isArray(answer) ? answer : []) {
    const { id, share } = asRecord(entry) ?? {};
    if (typeof id !== 'string') continue;
    backends.set(id, share === true ? await backendFile(client, id) : null);
  }
  return backends;
}

async function backendFile(client: QmpClient, id: string): Promise<string | null> {
  try {
    const path = await client.execute('qom-get', { path: `/objects/${id}`, property: 'mem-path' });
    return typeof path === 'string' && path.startsWith('/') ? path : null;
  } catch (error) {
    // Backends of other types have no such property.
    if (error instanceof DomschedError && error.code === 'protocol' && 'description' in error.details)
      return null;
    throw error;
  }
}

async function hostAddress(client: QmpClient, range: RamRange): Promise<number> {
  const output = await client.human(`gpa2hva 0x${range.start.toString(16)}`);
  const match = /is 0x([0-9a-f]+)\s*$/.exec(output);
  if (match !== null) return Number(`0x${match[1]}`);
  throw new DomschedError('protocol', `gpa2hva gives no address for ${range.start.toString(16)}`, {
    output: output.slice(0, 200),
  });
}

/**
 * Where in the file the guest's memory begins, if QEMU really has this file mapped at `address`; undefined when it
 * is another one by now (deleted and made again), a directory of huge pages, or not readable.
 */
function offsetInFile(path: string, pid: number, address: number): number | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  const mapping = mappingAt(pid, address);
  if (stat === undefined || !stat.isFile() || mapping === undefined || mapping.inode !== stat.ino)
    return undefined;
  return address - mapping.start + mapping.offset;
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
