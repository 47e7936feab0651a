/**
 * One observer over hosts in memory, in a process of its own, until it is killed: `daemon` (which serves its control
 * socket in DOMSCHED_RUNTIME_DIR), `idle` (the hosts alone), or `top`, `trace` and `ps` as they look without a daemon.
 * See observers.bench.ts.
 */
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import process from 'node:process';
import pino from 'pino';
import { comparison, flat } from '../../runtime/command/ps-order.ts';
import { table } from '../../runtime/command/ps-table.ts';
import { psAnswer } from '../../runtime/control/answers.ts';
import { ControlServer } from '../../runtime/control/server.ts';
import { Daemon } from '../../runtime/daemon/daemon.ts';
import { Operator } from '../../runtime/daemon/operator.ts';
import { Hosts } from '../../runtime/hypervisor/connect.ts';
import { FakeHost } from '../../runtime/hypervisor/fake/host.ts';
import { combine } from '../../runtime/policy/combine.ts';
import { controlPath, runtimeDirectory } from '../../runtime/runtime-directory.ts';
import { Ticker } from '../../runtime/tick/ticker.ts';
import { frame } from '../../runtime/top/frame.ts';
import { FIRST_VIEW } from '../../runtime/top/view.ts';
import { TraceRecorder } from '../../runtime/trace/recorder.ts';
import { Watcher } from '../../runtime/watch/watcher.ts';
import { knownKernel, O1_KERNEL } from '../runtime/guest/synthetic.ts';
import { busyGuests } from './busy-hosts.ts';

const [kind = '', domains = '10', interval = '500'] = process.argv.slice(2);
const intervalMs = Number(interval);
const { guests, work } = await busyGuests(Number(domains));
const hosts = new Hosts([new FakeHost(guests.map(({ domain }) => domain))]);
const known = [knownKernel(O1_KERNEL)];
const endless = new AbortController().signal;
setInterval(work, intervalMs);

async function sampled(use: (watcher: Watcher) => Promise<void>): Promise<void> {
  const watcher = new Watcher(hosts, known);
  for await (const _missed of new Ticker(intervalMs).ticks(endless)) await use(watcher);
}

const SCREEN = { columns: 160, rows: 50, colour: true, keys: true };
const kinds: Readonly<Record<string, () => Promise<void>>> = {
  idle: () => new Promise(() => {}),
  top: () =>
    sampled(async (watcher) => {
      process.stdout.write(frame(await watcher.tick(), FIRST_VIEW, SCREEN).lines.join('\n'));
    }),
  async trace() {
    const recorder = await TraceRecorder.create({
      file: path.join(runtimeDirectory(), randomUUID()),
      source: 'sampler',
    });
    await sampled(async (watcher) => recorder.tick(await watcher.tick()));
  },
  async ps() {
    await sampled(async (watcher) => {
      const { rows } = psAnswer(await watcher.look());
      process.stdout.write(table(flat(rows, comparison('pid'))));
    });
  },
  async daemon() {
    let server: ControlServer | undefined;
    const settings = {
      ...{ intervalMs, idleIntervalMs: intervalMs, discoveryMs: 2_000, techniques: undefined, hosts },
      ...{ decide: combine([]), origins: false, observers: [] },
    };
    const log = pino({ level: 'silent' });
    const daemon = new Daemon(settings, log, (tick) => server?.tick(tick));
    server = await ControlServer.listen(
      controlPath(),
      (connect) => new Operator(daemon, async () => {}, 'bench', connect),
      log,
    );
    await daemon.run(endless);
  },
};
await kinds[kind]!();
