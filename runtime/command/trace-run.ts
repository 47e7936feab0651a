import process from 'node:process';
import { openControl } from '../control/open.ts';
import { printable } from '../guest/text.ts';
import { lengthOf } from '../report/scale.ts';
import { TraceRecorder } from '../trace/recorder.ts';

export interface TraceOptions {
  connect?: string[];
  output: string;
  interval: number;
  for?: number;
  maxSize: number;
}

/**
 * Runs `domsched trace` until the time is over, or SIGINT or SIGTERM.
 * @throws DomschedError `usage`, `host-unreachable`, `trace-failed`
 */
export async function trace(options: TraceOptions): Promise<void> {
  const stop = new AbortController();
  const onSignal = () => stop.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  const timer = options.for === undefined ? undefined : setTimeout(onSignal, options.for * 1000);
  const errors: Error[] = [];
  try {
    await using control = await openControl(options.connect);
    const ticks = control.ticks({ signal: stop.signal, intervalMs: options.interval * 1000 });
    const recorder = await TraceRecorder.create({
      file: options.output,
      maxBytes: options.maxSize * 2 ** 20,
      source: ticks.source,
      onError: (error) => {
        errors.push(error);
        stop.abort();
      },
      onRoom: (room) => {
        const file = printable(options.output);
        const text = room.isFull
          ? `no room for ${file}: samples are left out until there is`
          : `${file} goes on; ${room.dropped} samples were left out`;
        process.stderr.write(`domsched: ${text}\n`);
      },
    });
    let count = 0;
    let first: number | undefined;
    let last = 0;
    try {
      for await (const tick of ticks) {
        recorder.tick(tick);
        count++;
        first ??= tick.ms;
        last = tick.ms;
      }
    } finally {
      await recorder.close();
    }
    if (errors.length > 0) throw errors[0];
    const length = lengthOf(last - (first ?? last));
    process.stdout.write(
      `${printable(options.output)}: ${count} samples of ${length}; domsched report draws it\n`,
    );
  } finally {
    clearTimeout(timer);
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}
