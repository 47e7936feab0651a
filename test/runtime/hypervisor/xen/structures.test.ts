import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import * as ours from '../../../../runtime/hypervisor/xen/structures.ts';

/** What a name of ours is in Xen's headers: a structure with its members by their own names, or an expression. */
const STRUCTURES: Readonly<Record<string, string>> = {
  DOMAIN_INFO: 'struct xen_domctl_getdomaininfo',
  VCPU_INFO: 'struct xen_domctl_getvcpuinfo',
  PV_CONTEXT: 'struct vcpu_guest_context',
  HVM_CPU: 'struct hvm_hw_cpu',
  HVM_LAPIC: 'struct hvm_hw_lapic_regs',
  SCHED_CREDIT: 'struct xen_domctl_sched_credit2',
};
const MEMBERS: Readonly<Record<string, string>> = {
  'PV_CONTEXT.rip': 'offsetof(struct vcpu_guest_context, user_regs.rip)',
  'PV_CONTEXT.rsp': 'offsetof(struct vcpu_guest_context, user_regs.rsp)',
  'PV_CONTEXT.rflags': 'offsetof(struct vcpu_guest_context, user_regs.rflags)',
  'HVM_CPU.code': 'HVM_SAVE_CODE(CPU)',
  'HVM_LAPIC.code': 'HVM_SAVE_CODE(LAPIC_REGS)',
  'DOMAIN_FLAGS.dying': 'XEN_DOMINF_dying',
  'DOMAIN_FLAGS.hvm': 'XEN_DOMINF_hvm_guest',
  'DOMAIN_FLAGS.shutdown': 'XEN_DOMINF_shutdown',
  'DOMAIN_FLAGS.paused': 'XEN_DOMINF_paused',
  'DOMAIN_FLAGS.xenstore': 'XEN_DOMINF_xs_domain',
  'SHUTDOWN_REASON.suspend': 'SHUTDOWN_suspend',
  'SHUTDOWN_REASON.crash': 'SHUTDOWN_crash',
  'SHUTDOWN_REASON.watchdog': 'SHUTDOWN_watchdog',
  'PV_FLAGS.inKernel': 'VGCF_in_kernel',
  'PV_FLAGS.online': 'VGCF_online',
  SHUTDOWN_SHIFT: 'XEN_DOMINF_shutdownshift',
  SHUTDOWN_MASK: 'XEN_DOMINF_shutdownmask',
};
/** The register page's own format, not a member. */
const NOT_IN_HEADERS = new Set(['HVM_LAPIC.id', 'DOMAIN_INFO_SIZES', 'SCHEDULERS']);

/** Names of ours with their values, `NAME.member` or `NAME`. */
function values(): [string, bigint][] {
  return Object.entries(ours).flatMap(([name, value]) => {
    if (NOT_IN_HEADERS.has(name)) return [];
    if (typeof value === 'number') return [[name, BigInt(value)]];
    return Object.entries(value as Record<string, number | bigint>)
      .map(([member, number]): [string, bigint] => [`${name}.${member}`, BigInt(number)])
      .filter(([full]) => !NOT_IN_HEADERS.has(full));
  });
}

function expression(name: string): string {
  const [structure = '', member = ''] = name.split('.');
  const type = STRUCTURES[structure];
  if (name in MEMBERS) return MEMBERS[name]!;
  if (type === undefined) throw new Error(`${name}: not known to this test`);
  return member === 'size' ? `sizeof(${type})` : `offsetof(${type}, ${member})`;
}

/** Compiles and runs a program against Xen's headers. */
function run(body: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'domsched-xen-headers-'));
  try {
    const source = path.join(folder, 'program.c');
    const headers = ['stddef.h', 'stdio.h', 'xenctrl.h', 'xen/hvm/save.h', 'xen/sched.h'];
    const includes = headers.map((header) => `#include <${header}>\n`).join('');
    writeFileSync(source, `${includes}int main(void) {\n${body}\nreturn 0;\n}\n`);
    execFileSync('gcc', ['-Werror', '-o', path.join(folder, 'program'), source]);
    return execFileSync(path.join(folder, 'program'), { encoding: 'utf8' });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("every place and number is what Xen's headers say", (t) => {
  const wanted = values();
  t.true(wanted.length > 45, String(wanted.length));
  const body = wanted
    .map(([name]) => `printf("%llu\\n", (unsigned long long)(${expression(name)}));`)
    .join('\n');
  const found = run(body).trim().split('\n').map(BigInt);
  const differing = wanted.filter(([, value], i) => value !== found[i]).map(([name]) => name);
  t.deepEqual(differing, []);
});

test('the size of what describes a domain is one of those that are known', (t) => {
  const size = Number(run('printf("%zu\\n", sizeof(xc_domaininfo_t));'));
  t.true(ours.DOMAIN_INFO_SIZES.includes(size), String(size));
});

test('schedulers have their numbers', (t) => {
  const names = Object.entries(ours.SCHEDULERS);
  const body = names.map(([, name]) => `printf("%d\\n", XEN_SCHEDULER_${name.toUpperCase()});`).join('\n');
  t.deepEqual(
    run(body).trim().split('\n'),
    names.map(([number]) => number),
  );
});
