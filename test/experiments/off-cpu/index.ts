import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const offCpu: Experiment = {
  name: 'off-cpu',
  title: 'Beyond the paper: how soon what runs is off its CPU',
  takes: { glance: '20 s', short: '5 min', full: '40 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
