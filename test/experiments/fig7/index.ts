import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const fig7: Experiment = {
  name: 'fig7',
  title: 'Figure 7 (§5.3): what looking costs, against the interval',
  takes: { glance: '30 s', short: '4 min', full: '25 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
