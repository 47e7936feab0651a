import type { Experiment } from '../experiment.ts';
import { judge } from './judge.ts';

export const fig6: Experiment = {
  name: 'fig6',
  title: 'Figure 6 (§5.2): lighttpd and tripwire',
  takes: { glance: '2 min', short: '6 min', full: '1 h' },
  measure: async (measuring) => (await import('./measure.ts')).measure(measuring),
  judge,
};
