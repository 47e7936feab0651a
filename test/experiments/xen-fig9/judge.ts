/** Figure 9 (section 5.5) where the paper measured it: by the weights of Xen's credit scheduler. */
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { judgeJobs } from '../fig9/judge.ts';
import { onWhat } from '../verdict.ts';

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const { verdicts, table, drawn } = judgeJobs(raw, onWhat(setup), ', on Xen');
  const text = `The paper’s own setup: domains A and B on one physical CPU of a Xen, the weights 256 and 64 by its credit scheduler (\`domsched weight b 64\`), the nice
values −20 and 19 written by domsched into the running guests. Domain A has the job and pi1, B has pi2 and pi3:

${table}

Each round has all three modes, in turn, and a job is compared with the same job alone in its round, by the clock of its own domain.

*What differs:* dom0 is on the same CPU, with a weight of 2048, and has nothing to do while a job runs but to wait for orders. *As it must be:* with 256 beside 64, A has ${((100 * 256) / (256 + 64)).toFixed(0)} %
of the CPU once B wants all it can get, so that a long job takes ${((256 + 64) / 256).toFixed(2)} times as long as alone. Xen’s credit scheduler gives a domain up to 30 ms at a time, and accounts every
30 ms: a job that begins while B has its turn waits for its end first, however short it is, because A, in which pi1 never rests, does not wake up and so is not
put before others.`;
  return {
    verdicts,
    text,
    pictures: [
      {
        name: 'xen-fig9',
        alt: 'How many times as long as alone a short job takes on Xen, loaded and preferred, against what it computes',
        spec: drawn,
      },
    ],
  };
}
