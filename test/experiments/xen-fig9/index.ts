import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const xenFig9: Experiment = {
  name: 'xen-fig9',
  title: 'Figure 9 on Xen: a short job among others of two domains on one CPU',
  takes: { glance: '2 min', short: '4 min', full: '15 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
