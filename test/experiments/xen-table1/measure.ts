import type { Measuring, UsedMachines } from '../experiment.ts';
import { ExperimentXen } from '../xen/xen.ts';
import type { XenTable1Sample } from './judge.ts';

const TURNS = { glance: 6, short: 20, full: 60 };
/** Of each way in a turn. */
const ROUNDS = { glance: 5, short: 20, full: 40 };

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  await using machine = await ExperimentXen.boot();
  const domain = await machine.domain({
    name: 'u1',
    programs: [
      { kind: 'burner', name: 'pi1' },
      { kind: 'burner', name: 'pi2' },
    ],
  });
  const reference = await machine.compile('test/bench/xen-reference.c');
  say(`${TURNS[form]} turns of each way, ${ROUNDS[form]} words each`);
  const text = await machine.node(
    'test/experiments/xen-table1/in-dom0.ts',
    ...[domain.name, await domain.id(), 'pi1', TURNS[form], ROUNDS[form], reference].map(String),
  );
  for (const line of text.trim().split('\n')) put(JSON.parse(line) as XenTable1Sample);
  await machine.check();
  return machine.used('U1: pi1 and pi2');
}
