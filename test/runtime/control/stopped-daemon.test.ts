import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { openDaemon } from '../../../runtime/control/open.ts';
import { isStopped } from '../../../runtime/hypervisor/stopped-process.ts';
import { scratchFolder } from '../../extractor/fixture.ts';
import { until } from '../../live/until.ts';

const PROGRAM = fileURLToPath(new URL('stopped-daemon-program.ts', import.meta.url));

test('a daemon that is stopped in the middle of an edit: who asks it is told so, and what to type', async (t) => {
  const folder = scratchFolder(t);
  process.env.DOMSCHED_RUNTIME_DIR = path.join(folder, 'run');
  const socket = path.join(folder, 'control');
  const daemon = spawn(process.execPath, [PROGRAM, socket], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => daemon.kill('SIGKILL'));
  await once(daemon.stdout, 'data');
  await until('it is stopped', () => isStopped(daemon.pid!));
  await using control = (await openDaemon([], socket))!;
  const error = await t.throwsAsync(control.domains(), { code: 'host-unreachable' });
  const pid = daemon.pid!;
  t.regex(
    error.message,
    new RegExp(`^the daemon, process ${pid}, is stopped .* since about \\d{4}-\\d\\d-\\d\\dT`),
  );
  t.regex(
    error.message,
    new RegExp(`process ${pid} may stand still because of it, in the middle of an edit; `),
  );
  t.true(error.message.endsWith(`kill -CONT ${pid}`));
});
