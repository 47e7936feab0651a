import test from 'ava';
import { type Control, openControl } from '../../../runtime/index.ts';

/** Never called: `make check` compiles it, and an error that is expected and does not come is one. */
async function consumer(control: Control): Promise<string[]> {
  await control.hold({ domain: 'web', process: 'backup', dryRun: true });
  // @ts-expect-error a misspelt option
  await control.hold({ domain: 'web', process: 'backup', dryrun: true });
  // @ts-expect-error a way to hold that there is not
  await control.hold({ domain: 'web', process: 'backup', technique: 'freeze' });
  // @ts-expect-error nothing without a process
  await control.release({ domain: 'web' });
  // @ts-expect-error a nice value is a number
  await control.renice({ domain: 'web', process: 'backup', nice: '5' });
  // @ts-expect-error a misspelt option
  await control.ps({ threaded: true });
  // @ts-expect-error there is no such thing to ask for
  await control.request('hold', { domain: 'web', process: 'backup' });
  const { rows } = await control.ps({ domain: 'web', threads: true });
  // @ts-expect-error nobody is told where a process is in the guest's memory
  return rows.map(({ address }) => address);
}

test('what a program asks for is typed, and it can be asked for', (t) => {
  t.is(typeof consumer, 'function');
  t.is(typeof openControl, 'function');
});
