import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const xenOffCpu: Experiment = {
  name: 'xen-off-cpu',
  title: 'How soon what runs is off its CPU, on Xen',
  takes: { glance: '2 min', short: '2 min', full: '15 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
