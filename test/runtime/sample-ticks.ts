import type { Tick, TickAction, TickDomain, TickFleet, TickProcess } from '../../runtime/tick/tick.ts';

/** A process with what a test cares about; the rest is dull. */
export function sampleProcess(facts: Partial<TickProcess> & { pid: number }): TickProcess {
  return {
    key: `key-${facts.pid}`,
    ppid: 1,
    comm: `p${facts.pid}`,
    state: 'sleeping',
    nice: 0,
    kernelThread: false,
    cpuNs: 0,
    ranNs: 0,
    cpu: 0,
    ...facts,
  };
}

export function sampleDomain(
  name: string,
  processes: readonly TickProcess[],
  facts: Partial<TickDomain> = {},
): TickDomain {
  return { id: `id-${name}`, name, hypervisor: 'fake', kernel: '6.1.0-test', vcpus: 2, ...facts, processes };
}

export function sampleAction(facts: Partial<TickAction>): TickAction {
  return {
    domain: 'id-web',
    action: 'hold',
    policy: 'test',
    reason: 'a test',
    outcome: 'done',
    techniques: ['park'],
    pausedUs: 1000,
    ...facts,
  };
}

/** A host that is connected, and hears nobody. */
export function sampleFleet(facts: Partial<TickFleet> = {}): TickFleet {
  return {
    name: 'here',
    connected: true,
    sinceMs: 60_000,
    listens: true,
    few: false,
    hosts: facts.heard?.length ?? 0,
    silent: [],
    heard: [],
    sent: 1,
    received: 1,
    refused: {},
    policy: { revision: 3, by: 'x', isCurrent: true },
    ...facts,
  };
}

const START = Date.parse('2026-01-02T03:04:05.000Z');

/** @param ms since the beginning */
export function isoAt(ms: number): string {
  return new Date(START + ms).toISOString();
}

export function sampleTick(tick: number, domains: readonly TickDomain[], facts: Partial<Tick> = {}): Tick {
  const ms = (tick - 1) * 500;
  return {
    tick,
    time: isoAt(facts.ms ?? ms),
    ms,
    elapsedMs: tick === 1 ? 0 : 500,
    tookMs: 2,
    missed: 0,
    actions: [],
    ...facts,
    domains,
  };
}

/**
 * A story after the paper's: a web server with bursts of requests, a database that answers them, and a backup that is
 * held while either of them runs.
 */
export function* backupStory(count: number): Generator<Tick> {
  const cpuNs = new Map<number, number>();
  let heldSince: string | undefined;
  for (let tick = 1; tick <= count; tick++) {
    const ms = (tick - 1) * 500;
    const isBusy = tick % 40 >= 12 && tick % 40 < 30;
    const wave = (Math.sin(tick * 1.7) + 1) / 2;
    const ran = (pid: number, comm: string, share: number, state: TickProcess['state'], held = false) => {
      const ranNs = tick === 1 ? 0 : Math.round(share * 5e8);
      cpuNs.set(pid, (cpuNs.get(pid) ?? 1e9) + ranNs);
      return sampleProcess({
        pid,
        comm,
        ranNs,
        cpuNs: cpuNs.get(pid)!,
        state,
        ...(held && {
          held: { policy: 'idle-only', reason: 'httpd of web runs', since: heldSince! },
        }),
      });
    };
    const wasHeld = heldSince !== undefined;
    const actions: TickAction[] = [];
    const hold = { domain: 'id-batch', key: 'key-200', pid: 200, comm: 'backup', policy: 'idle-only' };
    if (isBusy && !wasHeld && tick > 1) {
      heldSince = isoAt(ms - 480);
      actions.push(sampleAction({ ...hold, action: 'hold', reason: 'httpd of web runs', pausedUs: 2570 }));
    } else if (!isBusy && wasHeld) {
      heldSince = undefined;
      actions.push(sampleAction({ ...hold, action: 'release', reason: 'nothing else runs', pausedUs: 2100 }));
    }
    if (tick === 20) {
      actions.push(
        sampleAction({
          action: 'nice',
          domain: 'id-db',
          pid: 300,
          comm: 'postgres',
          policy: 'priority',
          reason: 'serves web',
        }),
      );
    }
    if (tick === 26) {
      actions.push(
        sampleAction({
          domain: 'id-batch',
          pid: 201,
          comm: 'indexer',
          outcome: 'refused',
          code: 'lock-held',
          pausedUs: 300,
        }),
      );
    }
    const held = heldSince !== undefined;
    yield sampleTick(
      tick,
      [
        sampleDomain('web', [
          ran(1, 'systemd', 0, 'sleeping'),
          ran(100, 'httpd', isBusy ? 0.55 + 0.4 * wave : 0.02 * wave, isBusy ? 'running' : 'sleeping'),
          ran(101, 'php', isBusy ? 0.3 * wave : 0, 'sleeping'),
        ]),
        sampleDomain('db', [
          ran(2, 'systemd', 0, 'sleeping'),
          ran(300, 'postgres', isBusy ? 0.6 * (1 - wave) + 0.1 : 0, isBusy ? 'ready' : 'sleeping'),
        ]),
        sampleDomain('batch', [
          ran(3, 'systemd', 0, 'sleeping'),
          ran(200, 'backup', held ? 0 : 0.97, held ? 'held' : 'running', held),
          ran(201, 'indexer', 0.22, 'ready'),
        ]),
      ],
      { actions },
    );
  }
}
