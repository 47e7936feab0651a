import { spawn } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { processState } from '../../../runtime/hypervisor/qemu/qemu-process.ts';
import { until } from '../../live/until.ts';

const PROGRAM = fileURLToPath(new URL('exit-guard-program.ts', import.meta.url));

/** Starts the program, ends it by SIGTERM once it is ready. @returns what it said after that, and how it ended */
async function terminated(how: string) {
  const child = spawn(process.execPath, [PROGRAM, how], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  const ready = new Promise<void>((resolve) => {
    child.stdout.on('data', (chunk) => {
      said += chunk;
      if (said.startsWith('ready\n')) resolve();
    });
  });
  const closed = once(child, 'close');
  await Promise.race([ready, closed]);
  child.kill('SIGTERM');
  await closed;
  return { said: said.replace('ready\n', ''), exitCode: child.exitCode, signal: child.signalCode };
}

test('ended by a signal: the action runs, and the signal is what ended it', async (t) => {
  t.deepEqual(await terminated('plain'), { said: 'action\n', exitCode: null, signal: 'SIGTERM' });
});

test('taken back: a signal ends the program as if there had been no action', async (t) => {
  t.deepEqual(await terminated('taken-back'), { said: '', exitCode: null, signal: 'SIGTERM' });
});

test('a program with a handler of its own, for once: it goes its own way, and the action runs on that', async (t) => {
  t.deepEqual(await terminated('own-handler'), {
    said: 'own way out\naction\n',
    exitCode: 7,
    signal: null,
  });
});

test('Ctrl-Z: it stops once there is nothing to do at its end any more', async (t) => {
  const child = spawn(process.execPath, [PROGRAM, 'until-told'], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  child.kill('SIGTSTP');
  child.stdin.write('go on\n');
  const [said] = await once(child.stdout, 'data');
  t.is(String(said), 'no more\n');
  t.true(await until('it is stopped', () => processState(child.pid!) === 'T'));
});
