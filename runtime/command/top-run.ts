import process from 'node:process';
import { openControl } from '../control/open.ts';
import { DomschedError } from '../error.ts';
import { jsonLine, plainName } from '../guest/text.ts';
import type { Tick } from '../tick/tick.ts';
import { frame, type TopPicture } from '../top/frame.ts';
import { press } from '../top/keys.ts';
import { Terminal } from '../top/terminal.ts';
import { entriesOf, FIRST_VIEW, orderNamed, type TopView } from '../top/view.ts';

export interface TopOptions {
  connect?: string[];
  interval: number;
  sort: string;
  count?: number;
  fleet?: true;
  config: string;
  json?: true;
}

/** Output to a file or pipe is not cut, however long a line is. */
const PAPER = { columns: 1000, rows: 1_000_000, colour: false, keys: false };

/**
 * Runs `domsched top`.
 * @throws DomschedError `usage`, `host-unreachable`
 */
export async function top(options: TopOptions): Promise<void> {
  const view: TopView = { ...FIRST_VIEW, sort: orderNamed(options.sort) };
  const stop = new AbortController();
  const onSignal = () => stop.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal).once('SIGHUP', onSignal);
  let broken: NodeJS.ErrnoException | undefined;
  process.stdout.on('error', (error) => {
    broken = error;
    stop.abort();
  });
  try {
    const ticks = limited(looks(options, stop.signal), options.count);
    if (options.json) for await (const tick of ticks) process.stdout.write(jsonLine(entryOf(tick, view)));
    else if (process.stdout.isTTY) await onTerminal(ticks, view, stop);
    else {
      for await (const tick of ticks) {
        process.stdout.write(`${frame(tick, view, PAPER).lines.join('\n')}\n\n`);
      }
    }
    // With `top | head` the reader may leave early.
    if (broken !== undefined && broken.code !== 'EPIPE') throw unprinted(broken);
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal).off('SIGHUP', onSignal);
  }
}

function unprinted(cause: Error): DomschedError {
  return new DomschedError(
    'output-failed',
    `standard output cannot be written: ${cause.message}`,
    {},
    { cause },
  );
}

/** Ticks of this host or of all. */
async function* looks({ fleet, config, connect, interval }: TopOptions, signal: AbortSignal) {
  const intervalMs = interval * 1000;
  if (fleet) {
    const { processes: opened, ticks } = await openFleet(config);
    await using processes = opened;
    yield* ticks.ticks(processes, signal, intervalMs);
  } else {
    await using control = await openControl(connect);
    yield* control.ticks({ signal, intervalMs });
  }
}

/** Loaded only here: it needs NATS. */
async function openFleet(config: string) {
  const { FleetProcesses } = await import('./fleet-processes.ts');
  const { FleetTicks } = await import('./top-fleet.ts');
  return { processes: await FleetProcesses.open(config), ticks: new FleetTicks() };
}

/** A picture as `--json` prints it, with stable keys. */
function entryOf(tick: Tick, view: TopView) {
  const { time, elapsedMs, domains } = tick;
  return {
    time,
    elapsedMs,
    errors: domains.flatMap(({ name, error }) => (error ? [{ domain: plainName(name), ...error }] : [])),
    processes: entriesOf(tick, view).map(
      ({ domain, process: { pid, comm, state, nice, cpuNs, held }, share }) => ({
        domain: plainName(domain.name),
        pid,
        comm: plainName(comm),
        state: held === undefined ? state : 'held',
        nice,
        share,
        cpuNs,
        held: held ?? null,
      }),
    ),
  };
}

async function* limited(ticks: AsyncIterable<Tick>, count = Number.POSITIVE_INFINITY) {
  let shown = 0;
  for await (const tick of ticks) {
    yield tick;
    if (++shown >= count) return;
  }
}

async function onTerminal(ticks: AsyncIterable<Tick>, first: TopView, stop: AbortController): Promise<void> {
  let view = first;
  let tick: Tick | undefined;
  let drawn: TopPicture | undefined;
  const draw = () => {
    if (tick === undefined) {
      terminal.show(['domsched: waiting for the first look']);
      return;
    }
    const { columns, rows } = terminal;
    drawn = frame(tick, view, { columns, rows, colour: process.stdout.hasColors(), keys: true });
    if (view.top > drawn.last) view = { ...view, top: drawn.last };
    terminal.show(drawn.lines);
  };
  using terminal = new Terminal((key) => {
    const effect = press(key, view, drawn?.page ?? 1);
    if (effect === 'quit') stop.abort();
    else if (effect !== undefined) {
      view = effect;
      draw();
    }
  }, draw);
  draw();
  for await (const next of ticks) {
    if (view.paused) continue;
    tick = next;
    draw();
  }
}
