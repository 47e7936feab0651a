import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const xenFig8: Experiment = {
  name: 'xen-fig8',
  title: 'Figure 8 on Xen: the lowest process of all domains runs while all others rest',
  takes: { glance: '2 min', short: '6 min', full: '18 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
