import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const xenFig6: Experiment = {
  name: 'xen-fig6',
  title: 'Figure 6 on Xen: lighttpd and tripwire',
  takes: { glance: '5 min', short: '7 min', full: '25 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
