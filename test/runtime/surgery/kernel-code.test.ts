/** What the ways to hold take for granted of a kernel's code, held against the code of every kernel at hand. */
import test from 'ava';
import { execa } from 'execa';
import type { LayoutView } from '../../../runtime/layout/view.ts';
import { canSpliceFair } from '../../../runtime/surgery/fair-layout.ts';
import { canPark, resolveParkLayout } from '../../../runtime/surgery/park-layout.ts';
import { layoutOf, realKernels } from '../../real-kernels.ts';

const kernels: { release: string; vmlinux: string; layout: LayoutView }[] = [];
for (const kernel of realKernels()) {
  const layout = await layoutOf(kernel);
  if (canPark(layout)) kernels.push({ ...kernel, layout });
}

/** Instructions from a symbol of the layout, or an address, on, in AT&T syntax. */
async function code(
  vmlinux: string,
  layout: LayoutView,
  symbol: string | bigint,
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
    const { offset } = resolveParkLayout(layout).irq_work.task;
    const text = await code(vmlinux, layout, 'process_timeout', 32);
    t.regex(text, new RegExp(`mov 0x${offset.toString(16)}\\(%rdi\\),%rdi`), release);
    t.regex(text, /(jmp|call) [0-9a-f]+ <wake_up_process>/, release);
  }
});

test('delayed_put_task_struct() drops a reference to the task around its rcu_head', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    const { rcu, usage } = resolveParkLayout(layout).task_struct;
    const text = await code(vmlinux, layout, 'delayed_put_task_struct', 64);
    t.regex(text, new RegExp(`lea -0x${rcu.toString(16)}\\(%rdi\\),`), release);
    const drops = `lock xadd %eax,-0x${(rcu - usage.offset).toString(16)}\\(|<put_task_struct>`;
    t.regex(text, new RegExp(drops), release);
  }
});

test('recalc_sigpending() looks for JOBCTL_TRAP_FREEZE in task->jobctl', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    const { jobctl } = resolveParkLayout(layout).task_struct;
    const text = await code(vmlinux, layout, 'recalc_sigpending', 64);
    const mask = new RegExp(`testq? \\$0x([0-9a-f]+),0x${jobctl.offset.toString(16)}\\(`).exec(text)?.[1];
    t.is(BigInt(`0x${mask ?? 0}`) & (1n << 23n), 1n << 23n, release);
  }
});

test('the loop before user mode looks at bit 1 of the flags, TIF_NOTIFY_RESUME, then clears it and runs the works', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    // Compilers put the loop into its caller or leave it apart.
    const address = await functionAt(vmlinux, 'exit_to_user_mode_(?:loop|prepare)');
    const text = await code(vmlinux, layout, address!, 800);
    t.regex(text, /lock andb \$0xfd,/, release);
    t.regex(text, /call [0-9a-f]+ <task_work_run>/, release);
  }
});

test('get_signal() has the freezer trap', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    const text = await code(vmlinux, layout, 'get_signal', 4096);
    t.regex(text, /test \$0x800000,/, release);
    t.regex(text, /<cgroup_enter_frozen>/, release);
  }
});

test('a CPU takes the whole of lazy_list at once, from its tick and from its interrupt', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    for (const symbol of ['irq_work_tick', 'irq_work_run']) {
      const offset = layout.requireSymbol('lazy_list').toString(16);
      const text = await code(vmlinux, layout, symbol, 160);
      t.regex(text, new RegExp(`(\\$0x${offset}|<lazy_list>|0x${offset})`), `${release} ${symbol}`);
    }
  }
});

test('the loop before user mode looks at bit 3 of the flags, TIF_NEED_RESCHED, and calls schedule()', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    const address = await functionAt(vmlinux, 'exit_to_user_mode_(?:loop|prepare)');
    const text = await code(vmlinux, layout, address!, 800);
    const masks = [...text.matchAll(/test[bl]? \$0x([0-9a-f]+),/g)].map(([, mask]) =>
      Number.parseInt(mask!, 16),
    );
    // PREEMPT_RT kernels have a second, lazy one in bit 4, and look at both at once.
    t.true(
      masks.some((mask) => mask === 0x8 || mask === 0x18),
      release,
    );
    t.regex(text, /call [0-9a-f]+ <schedule>/, release);
  }
});

test('a kernel thread that parks gets __state 0x40, TASK_PARKED', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    const address = await functionAt(vmlinux, '__kthread_parkme');
    const text = await code(vmlinux, layout, address!, 300);
    const { offset } = resolveParkLayout(layout).task_struct.state;
    t.regex(text, new RegExp(`movl \\$0x40,0x${offset.toString(16)}\\(`), release);
  }
});

test('a CPU that asks itself to reschedule clears bit 31 of its preemption count, which cond_resched() compares with 0', async (t) => {
  for (const { release, vmlinux, layout } of kernels) {
    const hot = layout.has('pcpu_hot', 'preempt_count');
    const count = hot
      ? layout.requireSymbol('pcpu_hot') + BigInt(layout.field('pcpu_hot', 'preempt_count').offset)
      : layout.requireSymbol('__preempt_count');
    const place = `%gs:0x[0-9a-f]+\\(%rip\\)(?:,%eax)? # ${count.toString(16)} <`;
    // A kernel with lazy requests has both kinds in one function.
    const own = (await functionAt(vmlinux, '__resched_curr')) ?? (await functionAt(vmlinux, 'resched_curr'));
    const ask = await code(vmlinux, layout, own!, 400);
    t.regex(ask, new RegExp(`andl \\$0x7fffffff,${place}`), release);
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
