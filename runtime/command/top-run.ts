import process from 'node:process';
import { openControl } from '../control/open.ts';
import { DomschedError } from '../error.ts';
import type { Tick } from '../tick/tick.ts';
import { frame, type TopPicture } from '../top/frame.ts';
import { press } from '../top/keys.ts';
import { Terminal } from '../top/terminal.ts';
import { FIRST_VIEW, orderNamed, type TopView } from '../top/view.ts';

export interface TopOptions {
  connect?: string[];
  interval: number;
  sort: string;
  count?: number;
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
    await using control = await openControl(options.connect);
    const all = control.ticks({ signal: stop.signal, intervalMs: options.interval * 1000 });
    const ticks = limited(all, options.count);
    if (process.stdout.isTTY) await onTerminal(ticks, view, stop);
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
