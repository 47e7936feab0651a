import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const xenFig7: Experiment = {
  name: 'xen-fig7',
  title: 'Figure 7 on Xen: what looking at a domain costs the processes in it, at one interval',
  takes: { glance: '2 min', short: '4 min', full: '15 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
