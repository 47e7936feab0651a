import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const xenTable1: Experiment = {
  name: 'xen-table1',
  title: 'Table 1 on Xen: one word of a paused domain, beside a C program of the paper’s way',
  takes: { glance: '2 min', short: '1 min', full: '5 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
