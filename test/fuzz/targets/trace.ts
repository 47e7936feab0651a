/** A trace, as `report` reads it. */
import { openTrace } from '../../../runtime/trace/read.ts';
import { scratchFile } from '../scratch-file.ts';

const HEADER = {
  format: 'domsched-trace/1',
  producer: { name: 'domsched', version: '1' },
  id: 'a',
  part: 1,
  source: 'daemon',
  started: '2026-01-01T00:00:00.000Z',
};
const PROCESS = { key: 'k', pid: 1, ppid: 0, comm: 'a', state: 'ready', nice: 0, cpuNs: 5, ranNs: 5, cpu: 0 };
const DOMAIN = { id: 'd', name: 'd', hypervisor: 'fake', kernel: null, vcpus: 1, processes: [PROCESS] };
const LINE = {
  tick: 1,
  time: '2026-01-01T00:00:00.000Z',
  ms: 1,
  elapsedMs: 500,
  tookMs: 1,
  missed: 0,
  full: true,
  domains: [DOMAIN],
  actions: [],
};

export function seeds(): Buffer[] {
  const lines = [HEADER, LINE, { ...LINE, tick: 2, full: undefined, domains: [], gone: ['d'] }];
  return [Buffer.from(`${lines.map((line) => JSON.stringify(line)).join('\n')}\n`)];
}

export async function read(bytes: Buffer): Promise<void> {
  const trace = await openTrace(scratchFile('trace', bytes));
  for await (const _ of trace.ticks());
}
