import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { hindrances } from '../../../../runtime/hypervisor/vmm/may-trace.ts';
import { scratchFolder } from '../../../extractor/fixture.ts';

/** `proc(5)`: what root has, and what Docker leaves of it. */
const ROOT = 'CapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\n';
const CONTAINER = 'CapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\n';

test('what forbids tracing is told, with the way out', (t) => {
  const root = scratchFolder(t);
  const put = (file: string, text: string) => {
    mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    writeFileSync(path.join(root, file), text);
  };
  const found = () => hindrances(root).map((each) => `${each.found}: ${each.advice}`);
  put('proc/self/status', ROOT);
  t.deepEqual(found(), []);
  put('proc/sys/kernel/yama/ptrace_scope', '1\n');
  put('sys/fs/selinux/booleans/deny_ptrace', '0 0');
  t.deepEqual(found(), [], 'root may');
  put('proc/self/status', CONTAINER);
  put('proc/sys/kernel/yama/ptrace_scope', '3\n');
  put('sys/fs/selinux/booleans/deny_ptrace', '1 1');
  const [capability, scope, selinux, ...more] = found();
  t.regex(capability!, /CAP_SYS_PTRACE.*container/);
  t.regex(scope!, /ptrace_scope.*reboot/);
  t.regex(selinux!, /setsebool deny_ptrace off/);
  t.deepEqual(more, []);
});
