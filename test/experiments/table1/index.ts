import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const table1: Experiment = {
  name: 'table1',
  title: 'Table 1 (§5.1): one word of a paused domain',
  takes: { glance: '10 s', short: '1 min', full: '5 min' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
