import test from 'ava';
import { parseConfig } from '../../../runtime/daemon/config.ts';
import { expectReadersChange } from '../../../runtime/daemon/split.ts';

const KEYS = 'split = true\nconnect = ["pid:"]\ninterval = 0.5';
const LOG = '[log]\nlevel = "info"\nfile = "/var/log/domsched/log"';
const TRACE = '[trace]\nfile = "/run/domsched/reader/x.trace"';
const before = parseConfig(`${KEYS}\n${LOG}\n${TRACE}`, 'before');

test('a reader takes other policies, times and levels of its log', (t) => {
  const policy = '[[policy]]\ntype = "io"\nselect = [{ comm = "backup" }]';
  const keys = KEYS.replace('0.5', '0.1');
  const next = parseConfig(`${keys}\nmaxHold = 5\n${LOG.replace('info', 'debug')}\n${TRACE}\n${policy}`, 'x');
  t.notThrows(() => expectReadersChange(before, next));
  t.notThrows(() => expectReadersChange(before, before));
});

const restarts: Readonly<Record<string, string>> = {
  connect: `${KEYS.replace('pid:', 'pid:17')}\n${LOG}\n${TRACE}`,
  split: `${KEYS.replace('split = true', 'split = false')}\n${LOG}\n${TRACE}`,
  http: `${KEYS}\n${LOG}\n${TRACE}\n[http]`,
  trace: `${KEYS}\n${LOG}\n${TRACE.replace('x.trace', 'y.trace')}`,
  'log.file': `${KEYS}\n${LOG.replace('log"', 'other"')}\n${TRACE}`,
};
for (const [key, text] of Object.entries(restarts)) {
  test(`what takes root is refused, and named: ${key}`, (t) => {
    t.throws(() => expectReadersChange(before, parseConfig(text, 'x')), {
      code: 'refused',
      message: new RegExp(`keeps its ${key.replace('.', '\\.')}, because.*restart it`),
    });
  });
}
