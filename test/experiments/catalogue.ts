import type { Experiment } from './experiment.ts';
import { fig6 } from './fig6/index.ts';
import { fig7 } from './fig7/index.ts';
import { fig8 } from './fig8/index.ts';
import { fig9 } from './fig9/index.ts';
import { offCpu } from './off-cpu/index.ts';

import { protect } from './protect/index.ts';
import { rival } from './rival/index.ts';
import { table1 } from './table1/index.ts';

/** All experiments, in the order of the paper's section 5, and then what it has not. */
export const EXPERIMENTS: readonly Experiment[] = [table1, fig6, fig7, fig8, fig9, rival, offCpu, protect];
