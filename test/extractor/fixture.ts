import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { ExecutionContext } from 'ava';

/** A folder that goes when the test ends. */
export function scratchFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'domsched-test-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Compiles C to an object file with debug information. @returns its path */
export function compile(t: ExecutionContext, source: string, flags: readonly string[] = ['-g']): string {
  const folder = scratchFolder(t);
  const input = join(folder, 'input.c');
  const output = join(folder, 'input.o');
  writeFileSync(input, source);
  execFileSync('gcc', ['-w', '-std=gnu11', ...flags, '-c', input, '-o', output]);
  return output;
}

/** Links C to a program like a vmlinux: symbols, sections with addresses, a build-id. @returns its path */
export function linkKernel(t: ExecutionContext, source: string, flags: readonly string[] = ['-g']): string {
  const object = compile(t, source, flags);
  const output = join(dirname(object), 'vmlinux-fixture');
  execFileSync('ld', ['-e', '0', '--build-id=sha1', '-Ttext=0xffffffff81000000', object, '-o', output]);
  return output;
}

/** Adds pahole's BTF to a file. */
export function addBtf(path: string): string {
  execFileSync('pahole', ['--btf_encode_force', '-J', path]);
  return path;
}

/** {@link compile}, with BTF made by pahole in `.BTF` beside the DWARF. */
export function compileWithBtf(t: ExecutionContext, source: string, flags?: readonly string[]): string {
  const output = compile(t, source, flags);
  return addBtf(output);
}

/** Answers of gdb to several commands on one file, in order. */
export function askGdb(file: string, commands: readonly string[]): string[] {
  const separator = '----';
  const args = commands.flatMap((command) => ['-ex', command, '-ex', `echo \\n${separator}\\n`]);
  const output = execFileSync('gdb', ['-batch', '-nx', ...args, file], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return output
    .split(`\n${separator}\n`)
    .slice(0, commands.length)
    .map((answer) => answer.trim());
}

/** A stand-in for an O(1) kernel: the structures that domsched insists on, and some of every sort of member. */
export const KERNEL_SOURCE = `
struct list_head { struct list_head *next, *prev; };
typedef struct { volatile unsigned int slock; } spinlock_t;
struct prio_array { unsigned int nr_active; unsigned long bitmap[3]; struct list_head queue[140]; };
struct runqueue {
  spinlock_t lock;
  unsigned long nr_running;
  struct task_struct *curr, *idle;
  struct prio_array *active, *expired, arrays[2];
};
enum pid_type { PIDTYPE_PID, PIDTYPE_PGID, PIDTYPE_SID };
struct task_struct {
  volatile long state;
  int prio, static_prio;
  struct list_head run_list;
  struct prio_array *array;
  unsigned did_exec:1, personality:31;
  enum pid_type type;
  union { int exit_code; struct { short low, high; }; };
  int pid;
  char comm[16];
};
enum { TASK_COMM_LEN = 16 };
struct runqueue per_cpu__runqueues;
struct task_struct init_task;
const char linux_banner[] = "Linux version 2.6.16-fixture (test@test) (gcc) #1 SMP\\n";
int len = TASK_COMM_LEN;
`;
