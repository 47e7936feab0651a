import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const protect: Experiment = {
  name: 'protect',
  title: 'Beyond the paper: a target instead of a rule (`protect` beside `idle-only`)',
  takes: { glance: '2 min', short: '7 min', full: '40 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
