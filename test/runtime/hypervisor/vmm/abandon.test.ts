/** The service may leave another user's machine stopped: with the capabilities of its unit, and not without CAP_KILL. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../../../kernels/paths.ts';
import { processState } from '../../../../runtime/hypervisor/qemu/qemu-process.ts';
import { until } from '../../../live/until.ts';
import { busyProcess } from './busy-process.ts';

const NOBODY = 65_534;
const ABANDON = path.join(import.meta.dirname, 'abandon.ts');
const unit = readFileSync(path.join(projectDirectory, 'runtime/daemon/domsched.service'), 'utf8');
const capabilities = /^CapabilityBoundingSet=(.+)$/m
  .exec(unit)![1]!
  .split(' ')
  .map((name) => name.replace(/^CAP_/, '').toLowerCase());

for (const lacks of [undefined, 'kill']) {
  test.serial(`given up with the capabilities of the unit${lacks ? ` but ${lacks}` : ''}`, async (t) => {
    const { pid } = await busyProcess(t, NOBODY);
    const set = ['-all', ...capabilities.filter((name) => name !== lacks).map((name) => `+${name}`)].join(
      ',',
    );
    await execa('setpriv', ['--bounding-set', set, process.execPath, ABANDON, String(pid)]);
    const stops = lacks === undefined;
    await until(`it ${stops ? 'stands' : 'goes on'}`, () => (processState(pid) === 'T') === stops);
    t.false(processState(pid) === 't', 'nobody traces it any more');
  });
}
