/** A disk that takes no more, at each of the calls by which we write down what we do. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import pino from 'pino';
import { DomschedError } from '../../../runtime/error.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import { Metrics } from '../../../runtime/metrics/metrics.ts';
import { JournaledSurgeon, Journals } from '../../../runtime/surgeon/journaled-surgeon.ts';
import { LineDecoder } from '../../../runtime/trace/decode.ts';
import { LineEncoder } from '../../../runtime/trace/encode.ts';
import { DomainShareKeeper } from '../../../runtime/watch/domain-share.ts';
import { HealthCheck } from '../../../runtime/web/health.ts';
import { BACKUP, FakeDaemon, isQueued, run, SERVER, twoGuests } from '../daemon/fake-daemon.ts';
import { FailingDisk } from '../failing-disk.ts';

const NEXT_STEP = { ENOSPC: /make room/, EDQUOT: /quota/, EROFS: /file system writable/, EIO: /disk fails/ };
/** Far more than the calls of any operation. */
const MOST_CALLS = 100;

async function bench(t: ExecutionContext) {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-full-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const { batch } = await twoGuests();
  const journals = new Journals(directory);
  const surgeon = await JournaledSurgeon.open(batch.domain, await knownKernels(), journals);
  t.teardown(() => surgeon.detach());
  const { processes } = await surgeon.guest.take();
  const backup = processes.find(({ pid }) => pid === BACKUP)!;
  return { directory, batch, journals, surgeon, backup };
}

for (const [code, nextStep] of Object.entries(NEXT_STEP)) {
  test.serial(
    `${code} at whichever call: hold, nice and weight fail by name, and nothing of the guest changes`,
    async (t) => {
      const { directory, batch, journals, surgeon, backup } = await bench(t);
      const { domain } = batch;
      domain.recorder.recording = true;
      const share = await DomainShareKeeper.open(domain.scheduler, journals.changes, domain.identity);
      const before = await domain.scheduler.get();
      const attempts = {
        hold: () => surgeon.hold(backup, {}),
        nice: () => surgeon.setNice(backup, 5, {}),
        weight: () => share.set('weight', before.weight + 1),
      };
      for (const [what, attempt] of Object.entries(attempts)) {
        let failures = 0;
        for (let takes = 0; ; takes++) {
          t.true(takes < MOST_CALLS);
          const writes = domain.recorder.count('write');
          const disk = new FailingDisk(code, takes);
          const error = await attempt().then(
            () => undefined,
            (reason: unknown) => reason,
          );
          disk[Symbol.dispose]();
          if (!disk.hasFailed) {
            t.is(error, undefined, what);
            break;
          }
          failures += 1;
          const about = `${what}, call ${takes}`;
          t.true(error instanceof DomschedError, `${about}: ${error}`);
          const { code: ours, message, details } = error as DomschedError;
          t.is(ours, 'journal-failed', about);
          t.true(message.includes(directory) && message.includes(code), message);
          t.regex(message, nextStep);
          t.is(details.reason, code);
          t.is(journals.health.failure, error as DomschedError, about);
          t.is(domain.recorder.count('write'), writes, about);
          t.deepEqual(await domain.scheduler.get(), before, about);
          t.deepEqual([share.isSet('weight'), surgeon.niced], [false, what === 'weight'], about);
          if (what === 'hold') t.deepEqual(await journals.held.list(), [], about);
        }
        t.true(failures >= 5, `${what}: ${failures}`);
        t.is(journals.health.failure, undefined, `${what}: it could be written`);
        if (what !== 'hold') continue;
        t.false(isQueued(batch, BACKUP));
        {
          using full = new FailingDisk(code, 0);
          t.is((await surgeon.release(backup, {})).outcome, 'released', 'to let go takes no room');
          t.true(full.hasFailed && isQueued(batch, BACKUP));
        }
        journals.health.probe();
        t.is(journals.health.failure, undefined);
      }
    },
  );
}

test.serial(
  'the daemon tells once that nothing can be written down and once that it can; all who watch it see that',
  async (t) => {
    const lines: { level: number; msg: string; code?: string }[] = [];
    const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
    const { batch, web } = await twoGuests();
    await using fake = await FakeDaemon.of([batch, web], { log });
    const metrics = new Metrics({ withoutOwn: true });
    const health = new HealthCheck();
    const tick = async () => {
      run(web, SERVER, 300);
      const seen = await fake.tick();
      metrics.tick(seen);
      health.tick(seen);
      return seen;
    };
    const isToldFailed = async () => /^domsched_journal_failed 1$/m.test(await metrics.text());
    await fake.start();
    t.false(await isToldFailed());
    const from = lines.length;
    {
      using full = new FailingDisk('ENOSPC', 0);
      let seen = await tick();
      for (let i = 0; i < 40; i++) seen = await tick();
      t.true(full.hasFailed && isQueued(batch, BACKUP));
      t.is(seen.journal?.code, 'journal-failed');
      t.is(health.get().status, 'journal-failed');
      const [problem, ...others] = health.get().problems;
      t.deepEqual(others, []);
      t.regex(problem!.message, /make room there/);
      t.true(Date.parse(problem!.since!) <= Date.now() && problem!.since === seen.journal?.since);
      t.regex(await metrics.text(), /^domsched_problem\{code="journal-failed",.*make room there.*\} 1$/m);
      const decoded = new LineDecoder().decode(new LineEncoder().encode(seen));
      t.deepEqual(decoded.journal, seen.journal, 'a trace has it');
      t.true(await isToldFailed());
      const { ways } = [...fake.daemon.domains.values()].find(({ name }) => name === 'batch')!;
      t.regex(ways!.refused.all!, /make room there/);
      const told = lines.slice(from).filter(({ msg }) => msg !== 'holding');
      t.deepEqual(
        told.map(({ level, code }) => [level, code]),
        [[pino.levels.values.error, 'journal-failed']],
      );
      t.true(lines.length - from <= 3, 'nor does it say each time what it wants');
    }
    for (let i = 0; i < 6; i++) await tick();
    t.false(isQueued(batch, BACKUP), 'it goes on by itself');
    t.deepEqual(await fake.held(), ['backup']);
    t.is(fake.ticks.at(-1)!.journal, undefined);
    t.is(health.get().status, 'healthy');
    t.deepEqual(health.get().problems, []);
    t.notRegex(await metrics.text(), /^domsched_problem\{/m);
    t.false(await isToldFailed());
    t.is(lines.filter(({ msg }) => msg.startsWith('the journal can be written again')).length, 1);
  },
);
