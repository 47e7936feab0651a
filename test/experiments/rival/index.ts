import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const rival: Experiment = {
  name: 'rival',
  title: 'The rival (§5.6): a scheduler inside the guests',
  takes: { glance: '3 min', short: '7 min', full: '40 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
