import type { KernelLayout, StructureMember } from '../../extractor/contract.ts';

/** A small layout that has one of everything; each call gives its own copy. */
export function sampleLayout(): KernelLayout {
  return {
    format: 'domsched-layout/1',
    kernel: {
      release: '6.1.0-test',
      banner: 'Linux version 6.1.0-test (gcc) #1 SMP',
      buildId: '0123456789abcdef0123456789abcdef01234567',
      arch: 'x86_64',
    },
    source: { file: 'vmlinux-6.1.0-test', sha256: 'ab'.repeat(32), engine: 'dwarf', dwarfVersion: 5 },
    producer: { name: 'domsched', version: '0.1.0' },
    structs: {
      rq: {
        name: 'rq',
        sourceName: 'runqueue',
        kind: 'struct',
        size: 128,
        members: [
          int('nr_running', 0, 4, false),
          int('class', 4, 2, true),
          { name: '__proto__', offset: 6, size: 1, type: '_Bool', kind: 'bool' },
          {
            name: 'curr',
            offset: 8,
            size: 8,
            type: 'struct task_struct *',
            kind: 'pointer',
            target: 'task_struct',
          },
          { name: 'cfs', offset: 16, size: 24, type: 'struct cfs_rq', kind: 'struct', struct: 'cfs_rq' },
          {
            name: null,
            offset: 40,
            size: 8,
            type: 'union {...}',
            kind: 'union',
            members: [
              int('whole', 40, 8, true),
              {
                name: null,
                offset: 40,
                size: 8,
                type: 'struct {...}',
                kind: 'struct',
                members: [int('low', 40, 4, false), int('high', 44, 4, false)],
              },
            ],
          },
          {
            name: 'named',
            offset: 48,
            size: 8,
            type: 'struct {...}',
            kind: 'struct',
            members: [int('inner', 52, 4, true)],
          },
          {
            name: 'pairs',
            offset: 56,
            size: 48,
            type: 'struct cfs_rq [2]',
            kind: 'array',
            dims: [2],
            element: { kind: 'struct', size: 24 },
            struct: 'cfs_rq',
          },
          {
            name: 'load',
            offset: 104,
            size: 12,
            type: 'int [3]',
            kind: 'array',
            dims: [3],
            element: { kind: 'int', size: 4 },
            signed: true,
          },
          { ...int('flag', 116, 4, false), bitOffset: 0, bitSize: 1 },
          { ...int('level', 116, 4, true), bitOffset: 1, bitSize: 7 },
          {
            name: 'tail',
            offset: 120,
            size: 0,
            type: 'unsigned char []',
            kind: 'array',
            dims: [0],
            element: { kind: 'int', size: 1 },
            signed: false,
          },
        ],
      },
      cfs_rq: {
        name: 'cfs_rq',
        sourceName: 'cfs_rq',
        kind: 'struct',
        size: 24,
        members: [
          int('h_nr_running', 0, 4, false),
          int('exec_clock', 8, 8, false),
          int('min_vruntime', 16, 8, false),
        ],
      },
    },
    enums: {
      pid_type: {
        size: 4,
        values: {
          PIDTYPE_PID: 0,
          PIDTYPE_MAX: 4,
          PIDTYPE_WIDE: '18446744073709551615',
          PIDTYPE_LOW: '-9223372036854775808',
        },
      },
    },
    constants: { TASK_COMM_LEN: 16, NEGATIVE: -1 },
    symbols: {
      init_task: '0xffffffff82a1a940',
      runqueues: '0x31980',
      'schedule.isra.0': '0xffffffff81000000',
    },
    percpu: ['runqueues'],
  };
}

export function int(name: string, offset: number, size: number, signed: boolean): StructureMember {
  const type = { 1: 'char', 2: 'short', 4: 'int', 8: 'long' }[size] ?? '__int128';
  return { name, offset, size, type: signed ? type : `unsigned ${type}`, kind: 'int', signed };
}
