import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const fig9: Experiment = {
  name: 'fig9',
  title: 'Figure 9 (§5.5): a short job among others of two domains on one CPU',
  takes: { glance: '30 s', short: '3 min', full: '15 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
