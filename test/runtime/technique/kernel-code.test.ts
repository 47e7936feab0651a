/**
 * What the ways to hold take for granted of a kernel's code beside its constants (test/runtime/code/), held against the
 * code of every kernel at hand.
 */

import test from 'ava';
import { execa } from 'execa';
import type { LayoutView } from '../../../runtime/layout/view.ts';
import type { SymbolName } from '../../../runtime/members/symbols.ts';
import { canSpliceFair } from '../../../runtime/technique/fair/members.ts';
import { noTrap, parkMembers } from '../../../runtime/technique/park/members.ts';
import { layoutOf, realKernels } from '../../real-kernels.ts';

const kernels: { release: string; vmlinux: string; layout: LayoutView }[] = [];
for (const kernel of realKernels()) {
  const layout = await layoutOf(kernel);
  if (noTrap(layout) === null) kernels.push({ ...kernel, layout });
}

/** Instructions from a symbol of the layout, or an address, on, in AT&T syntax. */
async function code(
  vmlinux: string,
  layout: LayoutView,
  symbol: SymbolName | bigint,
  length: number,
): Promise<string> {
  const start = typeof symbol === 'bigint' ? symbol : layout.requireSymbol(symbol);
  const { stdout } = await execa('objdump', [
    '-d',
    '--no-show-raw-insn',
    `--start-address=0x${start.toString(16)}`,
    `--stop-address=0x${(start + BigInt(length)).toString(16)}`,
    vmlinux,
  ]);
  return stdout.replaceAll(/[ \t]+/g, ' ');
}

/**
 * Address of a function that a layout has no symbol for.
 * @param name as a regular expression
 */
async function functionAt(vmlinux: string, name: string): Promise<bigint | undefined> {
  const { stdout } = await execa('nm', [vmlinux]);
  const address = new RegExp(`^([0-9a-f]+) \\w ${name}$`, 'm').exec(stdout)?.[1];
  return address === undefined ? undefined : BigInt(`0x${address}`);
}

test('there is a kernel to look at', (t) => {
  t.true(kernels.length > 0, 'no kernel that is here can be parked on');
  t.log(kernels.map(({ release }) => release).join(', '));
});

test('process_timeout() wakes the task that stands behind a timer_list', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    const { offset } = parkMembers(layout).irq_work.task;
    const text = await code(vmlinux, layout, 'process_timeout', 32);
    t.regex(text, new RegExp(`mov 0x${offset.toString(16)}\\(%rdi\\),%rdi`), release);
    t.regex(text, /(jmp|call) [0-9a-f]+ <wake_up_process>/, release);
  }
});

test('delayed_put_task_struct() drops a reference to the task around its rcu_head', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    const { rcu, usage } = parkMembers(layout).task_struct;
    const text = await code(vmlinux, layout, 'delayed_put_task_struct', 64);
    t.regex(text, new RegExp(`lea -0x${rcu.toString(16)}\\(%rdi\\),`), release);
    const drops = `lock xadd %eax,-0x${(rcu - usage.offset).toString(16)}\\(|<put_task_struct>`;
    t.regex(text, new RegExp(drops), release);
  }
});

test('a CPU takes the whole of lazy_list at once, from its tick and from its interrupt', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    for (const symbol of ['irq_work_tick', 'irq_work_run'] as const) {
      const offset = layout.requireSymbol('lazy_list').toString(16);
      const text = await code(vmlinux, layout, symbol, 160);
      t.regex(text, new RegExp(`(\\$0x${offset}|<lazy_list>|0x${offset})`), `${release} ${symbol}`);
    }
  }
});

test('cond_resched() compares the preemption count, with the request in it, with 0', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    const hot = layout.has('pcpu_hot', 'preempt_count');
    const count = hot
      ? layout.requireSymbol('pcpu_hot') + BigInt(layout.field('pcpu_hot', 'preempt_count').offset)
      : layout.requireSymbol('__preempt_count');
    const place = `%gs:0x[0-9a-f]+\\(%rip\\)(?:,%eax)? # ${count.toString(16)} <`;
    // PREEMPT_RT kernels are preempted anywhere and have none.
    const cond = await functionAt(vmlinux, '__cond_resched');
    if (cond === undefined) continue;
    const look = await code(vmlinux, layout, cond, 64);
    t.regex(look, new RegExp(`mov ${place}[^\\n]*\\n ?[0-9a-f]+: test %eax,%eax`), release);
  }
});

test('a fair server that may run behind the back of an edit is started only if it does not run', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    if (!layout.has('rq', 'fair_server') || !canSpliceFair(layout)) continue;
    const { bits } = layout.field('sched_dl_entity', 'dl_server_active');
    const byte = (bits!.offset + Math.floor(bits!.shift / 8)).toString(16);
    const mask = (1 << (bits!.shift % 8)).toString(16);
    const address = await functionAt(vmlinux, 'dl_server_start');
    const text = await code(vmlinux, layout, address!, 80);
    t.regex(text, new RegExp(`testb \\$0x${mask},0x${byte}\\(`), release);
    // The last thread of a queue that leaves it does not stop the server.
    const leave = await functionAt(vmlinux, 'dequeue_entities(?:\\.\\w+)*');
    const leaving = await code(vmlinux, layout, leave!, 2048);
    t.regex(leaving, /<dequeue_entity/, release);
    t.notRegex(leaving, /<dl_server_stop>/, release);
  }
});
