import test from 'ava';
import { EVERY_MS } from '../../../runtime/daemon/waits.ts';
import type { Observer, Tick } from '../../../runtime/tick/tick.ts';
import { FakeDaemon, run, SERVER, twoGuests } from './fake-daemon.ts';

test('who waited for whom is told every ten seconds, from the looks that are made anyway, if somebody wants it', async (t) => {
  const { batch, web } = await twoGuests();
  await using fake = await FakeDaemon.of([batch, web], { entries: [] });
  await fake.start();
  t.true(fake.ticks.every(({ waits }) => waits === undefined));

  const told: Tick[] = [];
  const observer: Observer = { tick: (tick) => told.push(tick), close: async () => {}, wantsWaits: true };
  fake.daemon.reload({ ...fake.settings([]), observers: [observer] });
  for (const { domain } of [batch, web]) domain.times = [{ ranNs: 0, waitedNs: 0, cpu: 7 }];
  await fake.tick();
  t.deepEqual(told.at(-1)!.waits, [], 'the first sample tells nothing yet');
  await fake.tick();
  t.is(told.at(-1)!.waits, undefined, 'it is not time yet');

  batch.domain.times = [{ ranNs: 2e9, waitedNs: 8e9, cpu: 7 }];
  web.domain.times = [{ ranNs: 8e9, waitedNs: 0, cpu: 7 }];
  run(web, SERVER, 8_000);
  fake.nowMs += EVERY_MS;
  await fake.tick();
  const { waits } = told.at(-1)!;
  // The backup was ready all the time; four fifths of it its vCPU waited for the one in which the server ran.
  t.like(waits![0], {
    domain: 'batch',
    comm: 'backup',
    culprit: { kind: 'process', domain: 'web', comm: 'server' },
    place: 'host',
  });
  t.true(waits![0]!.ns > 7.9e9 && waits![0]!.ns < 10e9, String(waits![0]!.ns));
  t.true(waits!.some(({ place, comm }) => place === 'guest' && comm === 'backup'));
});
