import type { Experiment } from './experiment.ts';
import { fig6 } from './fig6/index.ts';
import { fig7 } from './fig7/index.ts';
import { fig8 } from './fig8/index.ts';
import { fig9 } from './fig9/index.ts';
import { offCpu } from './off-cpu/index.ts';
import { protect } from './protect/index.ts';
import { rival } from './rival/index.ts';
import { table1 } from './table1/index.ts';
import { xenFig6 } from './xen-fig6/index.ts';
import { xenFig7 } from './xen-fig7/index.ts';
import { xenFig8 } from './xen-fig8/index.ts';
import { xenFig9 } from './xen-fig9/index.ts';
import { xenOffCpu } from './xen-off-cpu/index.ts';
import { xenTable1 } from './xen-table1/index.ts';

/** All experiments, in the order of the paper's section 5, and then what it has not. Each on Xen follows that on QEMU. */
export const EXPERIMENTS: readonly Experiment[] = [
  ...[table1, xenTable1],
  ...[fig6, xenFig6],
  ...[fig7, xenFig7],
  ...[fig8, xenFig8],
  ...[fig9, xenFig9],
  rival,
  ...[offCpu, xenOffCpu],
  protect,
];
