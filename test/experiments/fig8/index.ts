import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const fig8: Experiment = {
  name: 'fig8',
  title: 'Figure 8 (§5.4): the lowest process of all domains runs while all others rest',
  takes: { glance: '20 s', short: '5 min', full: '22 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
