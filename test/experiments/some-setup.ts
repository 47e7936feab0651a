import type { Setup } from './experiment.ts';

/** For tests of what judges: where no samples were taken. */
export const SOME_SETUP: Setup = {
  experiment: 'some',
  form: 'short',
  begun: '',
  ended: '',
  commit: '',
  machine: { cpu: '', cpus: 2, memoryMiB: 1, kernel: '' },
  load: [0, 0],
  nice: 0,
  versions: { domsched: '', node: '', qemu: '' },
  accelerator: 'tcg',
  guests: [],
};
