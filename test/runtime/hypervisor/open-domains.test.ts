import test from 'ava';
import type { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { OpenDomains } from '../../../runtime/hypervisor/open-domains.ts';
import { fakeGuest } from '../daemon/fake-daemon.ts';

test('a domain that is open is opened once; one that is gone or closed is let go of', async (t) => {
  const open = new OpenDomains<FakeDomain>();
  const [{ domain: one }, { domain: two }] = await Promise.all([fakeGuest('one'), fakeGuest('two')]);
  t.is(await open.get('one'), undefined);
  t.is(open.add('one', one), one);
  t.is(await open.get('one'), one);
  one.destroy();
  t.is(await open.get('one'), undefined, 'it said so itself');
  two.recorder.recording = true;
  open.add('two', two);
  // As a domain that somebody else closed answers.
  two.state = async () => 'gone';
  t.is(await open.get('two'), undefined);
  t.is(two.recorder.count('close'), 1);
  const { domain: three } = await fakeGuest('three');
  three.recorder.recording = true;
  open.add('two', three);
  await open.close();
  t.is(three.recorder.count('close'), 1);
  t.is(await open.get('two'), undefined);
});
