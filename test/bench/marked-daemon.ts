/**
 * `node test/bench/marked-daemon.ts CONFIG`: the daemon, which says on its standard output when it does what, one JSON
 * document a line. For `hold-parts.bench.ts`. Nothing of the daemon itself is changed for it: what it is made of is watched.
 */
import { writeSync } from 'node:fs';
import process from 'node:process';
import { pino } from 'pino';
import { readConfig } from '../../runtime/daemon/config.ts';
import { Daemon } from '../../runtime/daemon/daemon.ts';
import { makeSettings } from '../../runtime/daemon/settings.ts';
import type { Domain, Host, HostClock, Pausable, PauseGuard } from '../../runtime/hypervisor/types.ts';

/** Something that the daemon did, in the host's monotonic clock. */
export interface DaemonMark {
  readonly what:
    | 'ready'
    | 'sees'
    | 'ticks'
    | 'decided'
    | 'holds'
    | 'pauses'
    | 'paused'
    | 'proves'
    | 'proved'
    | 'written'
    | 'resumes'
    | 'resumed'
    | 'done';
  readonly ms: number;
  /** Of `decided`: whether the tick was brought forward. */
  readonly early?: boolean;
}

const marks: DaemonMark[] = [];
let isTelling = false;

function mark(what: DaemonMark['what'], more: Partial<DaemonMark> = {}): void {
  marks.push({ what, ms: monotonicMs(), ...more });
  if (isTelling) return;
  isTelling = true;
  // Not in the middle of what is measured.
  setTimeout(() => {
    isTelling = false;
    for (const each of marks.splice(0)) writeSync(1, `${JSON.stringify(each)}\n`);
  }, 150);
}

function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

function marked(domain: Domain): Domain {
  const { pause, writeFrames, hostClock } = domain;
  if (pause === undefined || writeFrames === undefined) return domain;
  const write = writeFrames.write.bind(writeFrames);
  writeFrames.write = (writes) => {
    write(writes);
    mark('written');
  };
  if (hostClock !== undefined) {
    const read = hostClock.read.bind(hostClock);
    (hostClock as { read: HostClock['read'] }).read = () => {
      mark('sees');
      return read();
    };
  }
  const acquire = pause.acquire.bind(pause);
  (pause as { acquire: Pausable['acquire'] }).acquire = async (use) => {
    mark('pauses');
    const guard = await acquire(use);
    mark('paused');
    return markedGuard(guard);
  };
  return domain;
}

function markedGuard(guard: PauseGuard): PauseGuard {
  const { prove, release } = guard;
  return Object.defineProperties(guard, {
    prove: {
      value: async () => {
        mark('proves');
        const proof = await prove.call(guard);
        mark('proved');
        return proof;
      },
    },
    release: {
      value: async () => {
        mark('resumes');
        await release.call(guard);
        mark('resumed');
      },
    },
  });
}

function markedHost(host: Host): void {
  const open = host.open.bind(host);
  host.open = async (id) => marked(await open(id));
}

const file = process.argv[2]!;
const config = await readConfig(file);
const log = pino({ level: 'silent' });
const settings = await makeSettings(config, file, log);
settings.hosts.all.forEach(markedHost);
const told = pino(
  { level: 'debug' },
  {
    write: (line: string) => {
      const { msg } = JSON.parse(line) as { msg: string };
      if (msg === 'holding') mark('holds');
      if (msg === 'hold') mark('done');
      if (msg === 'attached') mark('ready');
    },
  },
);
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());
const daemon = new Daemon(settings, told, ({ early, tookMs }) => {
  const ms = monotonicMs();
  marks.push({ what: 'ticks', ms: ms - tookMs });
  mark('decided', { early: early ?? false });
});
await daemon.run(stop.signal);
await daemon.restore();
await daemon.close();
