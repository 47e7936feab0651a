import { setTimeout as sleep } from 'node:timers/promises';
import type { Measuring, UsedMachines } from '../experiment.ts';
import { LOWEST } from '../fig8/judge.ts';
import { lookOn } from '../fig8/look-on.ts';
import { Dom0Daemon } from '../xen/dom0-daemon.ts';
import { SeenXen } from '../xen/seen.ts';
import { ExperimentXen } from '../xen/xen.ts';
import type { XenFig8Cost } from './judge.ts';

/** Interval of the daemon (0: there is none) and of its sentinel (0 for none); and for how long. */
const RUNS = {
  glance: [{ intervalMs: 500, sentinelMs: 5, seconds: 10 }],
  short: [
    { intervalMs: 0, sentinelMs: 0, seconds: 40 },
    { intervalMs: 500, sentinelMs: 0, seconds: 75 },
    { intervalMs: 500, sentinelMs: 5, seconds: 75 },
  ],
  full: [
    { intervalMs: 0, sentinelMs: 0, seconds: 100 },
    { intervalMs: 500, sentinelMs: 0, seconds: 300 },
    { intervalMs: 500, sentinelMs: 5, seconds: 300 },
    { intervalMs: 200, sentinelMs: 0, seconds: 300 },
  ],
} as const;
/** pi1 computes all the time; each other one rests so many ms, and up to half of it more, and computes so many. */
const U1 = { pi2: [4_240, 1_200], pi3: [6_320, 900] } as const;
const U2 = { pi4: [2_480, 1_300] } as const;
const POLICY = `[[policy]]\ntype = "idle-only"\nselect = [{ domain = "u1", comm = "${LOWEST}" }]`;
const WARM_MS = 1_500;

type XenBursts = Readonly<Record<string, readonly [restMs: number, burstMs: number]>>;

function starts(bursts: XenBursts): string {
  return Object.entries(bursts)
    .map(
      ([comm, [rest, burst]]) =>
        `REST_MS=${rest} BURST_MS=${burst} /bin/workload bursts ${comm} </dev/null &`,
    )
    .join('\n');
}

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  await using machine = await ExperimentXen.boot();
  const u1 = await machine.domain({
    name: 'u1',
    programs: [{ kind: 'burner', name: LOWEST }],
    setup: starts(U1),
  });
  const u2 = await machine.domain({ name: 'u2', setup: starts(U2) });
  using outside = new SeenXen(machine);
  const seen = [
    outside.counting(LOWEST),
    ...(await outside.wanting(u1, Object.keys(U1))),
    ...(await outside.wanting(u2, Object.keys(U2))),
  ];
  for (const { intervalMs, sentinelMs, seconds } of RUNS[form]) {
    say(
      `the daemon looks every ${intervalMs || '–'} ms, its sentinel every ${sentinelMs || '–'}, for ${seconds} s`,
    );
    const keys = [
      `interval = ${intervalMs / 1000}\nidleInterval = ${intervalMs / 1000}\nmaxHold = false`,
      `sentinel = ${sentinelMs === 0 ? 'false' : sentinelMs / 1000}`,
    ];
    await using daemon =
      intervalMs === 0 ? undefined : await Dom0Daemon.start(machine.xen, keys.join('\n'), POLICY, 'holding');
    await sleep(WARM_MS);
    const before = await daemon?.cpuMs();
    const begun = performance.now();
    // When pi1 ran, and when another one wanted to.
    for (const sample of await lookOn(seen, seconds * 1000))
      if ((sample.process === LOWEST) === (sample.did === 'ran')) put({ intervalMs, sentinelMs, ...sample });
    const elapsedMs = performance.now() - begun;
    if (daemon === undefined) continue;
    const daemonMs = (await daemon.cpuMs()) - before!;
    put({ intervalMs, sentinelMs, daemonMs, elapsedMs } satisfies XenFig8Cost);
    await daemon.end();
  }
  await machine.check();
  return machine.used(
    `U1: pi1 computes, pi2 and pi3, U2: pi4, rest at least and compute, ms: ${[U1, U2]
      .flatMap((all) => Object.entries(all).map(([name, [rest, burst]]) => `${name} ${rest}/${burst}`))
      .join(', ')}`,
  );
}
