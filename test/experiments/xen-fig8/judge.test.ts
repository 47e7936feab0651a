import test from 'ava';
import type { Fig8Sample } from '../fig8/judge.ts';
import { SOME_SETUP } from '../some-setup.ts';
import { judge } from './judge.ts';

function sample(intervalMs: number, process: string, did: Fig8Sample['did'], from: number, to: number) {
  return { intervalMs, sentinelMs: 0, process, did, from, to };
}

test('what was seen with no daemon is told as that, and judged by no claim', (t) => {
  const { verdicts, text } = judge({ ...SOME_SETUP, xen: '4.17' }, [
    sample(0, 'pi1', 'ran', 0, 1000),
    sample(0, 'pi4', 'wanted', 250, 750),
    sample(500, 'pi1', 'ran', 0, 300),
    sample(500, 'pi4', 'wanted', 250, 1000),
    { intervalMs: 500, sentinelMs: 0, daemonMs: 100, elapsedMs: 1000 },
  ]);
  t.regex(text, /With no daemon pi1 ran beside others in 50\.0 % of the time/);
  t.regex(text, /Of the machine’s CPU the daemon had 10 % \(every 500 ms: 50 ms for a look/);
  t.deepEqual(
    verdicts.map(({ outcome }) => outcome),
    ['met', 'met'],
  );
  for (const { claim } of verdicts) t.regex(claim, /^Every 500 ms/);
});
