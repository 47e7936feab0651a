import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { KernelLayout } from '../../extractor/contract.ts';
import { BtfBuilder } from './build-btf.ts';
import { buildElf } from './elf/build-elf.ts';
import { addBtf, compile, KERNEL_SOURCE, linkKernel, scratchFolder } from './fixture.ts';
import { compiledDomsched, domsched, interruptDomsched } from './run-cli.ts';

/** Everything below a folder: names, and bytes of files. */
function snapshot(folder: string): Record<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  return Object.fromEntries(
    names.map((name) => {
      const path = join(folder, name);
      return [name, lstatSync(path).isFile() ? readFileSync(path, 'base64') : 'folder'];
    }),
  );
}

function shell(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8' });
}

test('JSON on standard output holds what other tools say of the file', (t) => {
  const file = linkKernel(t, KERNEL_SOURCE);
  const { code, stdout, stderr } = domsched(['extract', file, '--json', '-']);
  t.is(stderr, '');
  t.is(code, 0);
  const layout = JSON.parse(stdout) as KernelLayout;
  t.is(layout.format, 'domsched-layout/1');
  t.is(layout.kernel.banner, 'Linux version 2.6.16-fixture (test@test) (gcc) #1 SMP');
  t.is(layout.kernel.release, '2.6.16-fixture');
  t.is(layout.kernel.arch, 'x86_64');
  t.is(layout.kernel.buildId, /Build ID: ([0-9a-f]+)/.exec(shell('readelf', '-n', file))![1]!);
  t.is(layout.source.sha256, null);
  t.is(layout.source.file, 'vmlinux-fixture');
  t.is(layout.source.engine, 'dwarf');
  t.is(layout.source.dwarfVersion, 5);
  const version = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  t.deepEqual(layout.producer, { name: 'domsched', version: version.version });
  t.is(layout.structs.rq?.sourceName, 'runqueue');
  t.false('runqueue' in layout.structs);
  for (const name of ['init_task', 'per_cpu__runqueues', 'linux_banner']) {
    const address = new RegExp(`^0*([0-9a-f]+) \\w ${name}$`, 'm').exec(shell('nm', file))![1]!;
    t.is(layout.symbols[name], `0x${address}`);
  }
  t.deepEqual(layout.enums.pid_type?.values, { PIDTYPE_PID: 0, PIDTYPE_PGID: 1, PIDTYPE_SID: 2 });
});

for (const version of [2, 3, 4, 5]) {
  test(`DWARF ${version}: the same structures as the default of the compiler`, (t) => {
    const layouts = [['-g'], [`-gdwarf-${version}`, '-gstrict-dwarf']].map((flags) => {
      const { code, stdout } = domsched(['extract', linkKernel(t, KERNEL_SOURCE, flags), '--json', '-']);
      t.is(code, 0);
      return JSON.parse(stdout) as KernelLayout;
    });
    t.is(layouts[1]!.source.dwarfVersion, version);
    t.deepEqual(layouts[1]!.structs, layouts[0]!.structs);
  });
}

test('a kernel without a build-id is known by the hash of its file, one with it is not hashed', (t) => {
  const file = linkKernel(t, KERNEL_SOURCE);
  const facts = () => JSON.parse(domsched(['extract', file, '--json', '-']).stdout) as KernelLayout;
  const named = facts();
  t.is(named.kernel.buildId, /Build ID: (\w+)/.exec(shell('readelf', '-n', file))![1]!);
  t.is(named.source.sha256, null);
  shell('objcopy', '--remove-section=.note.gnu.build-id', file);
  const { kernel, source } = facts();
  t.is(kernel.buildId, null);
  t.is(source.sha256, shell('sha256sum', file).slice(0, 64));
});

test('the compiled program prints the same bytes', (t) => {
  const file = addBtf(linkKernel(t, KERNEL_SOURCE));
  for (const engine of ['dwarf', 'btf']) {
    const args = ['extract', file, '--engine', engine, '--json', '-'];
    const compiled = compiledDomsched(args);
    t.is(compiled.code, 0, `${compiled.stderr}: is dist/ built? (make build)`);
    t.is(compiled.stdout, domsched(args).stdout);
  }
});

test('a stripped kernel is read by its BTF, per-CPU variables included; a System.map gives the addresses', (t) => {
  // As in any kernel, a negative enumerator is there: only by one does BTF show that it tells signs.
  const source = `${KERNEL_SOURCE.replace(
    'struct runqueue per_cpu__runqueues;',
    'struct runqueue runqueues __attribute__((section(".data..percpu")));',
  )} enum sign { BELOW = -1 } sign;`;
  const file = linkKernel(t, source);
  const map = join(scratchFolder(t), 'System.map');
  writeFileSync(map, shell('nm', file));
  const expected = JSON.parse(domsched(['extract', file, '--json', '-']).stdout) as KernelLayout;
  addBtf(file);
  const stripped = `${file}.stripped`;
  shell('objcopy', '--strip-all', file, stripped);
  const bare = domsched(['extract', stripped, '--json', '-']);
  t.is(bare.stderr, '');
  const layout = JSON.parse(bare.stdout) as KernelLayout;
  t.is(layout.source.engine, 'btf');
  t.is(layout.source.dwarfVersion, null);
  t.is(layout.kernel.release, '2.6.16-fixture');
  t.deepEqual(Object.keys(layout.structs).sort(), Object.keys(expected.structs).sort());
  t.deepEqual(layout.structs.task_struct, expected.structs.task_struct);
  t.is(layout.symbols.init_task, undefined);
  const out = join(scratchFolder(t), 'generated');
  t.regex(
    domsched(['extract', stripped, '--out', out]).stderr,
    /\(btf\) -> .*\n.* has no addresses, .* --symbols .*\n$/,
  );
  t.regex(domsched(['extract', stripped, '--symbols', map, '--out', out]).stderr, /^[^\n]*\(btf\) -> .*\n$/);
  const withMap = JSON.parse(
    domsched(['extract', stripped, '--symbols', map, '--json', '-']).stdout,
  ) as KernelLayout;
  t.is(withMap.symbols.init_task, expected.symbols.init_task);
});

test("a module's BTF is read with the kernel that it asks for", (t) => {
  const kernel = addBtf(linkKernel(t, KERNEL_SOURCE));
  const module = compile(
    t,
    'struct list_head { struct list_head *next, *prev; }; struct own { struct list_head l; } own;',
  );
  shell('pahole', '--btf_encode_force', '-J', '--btf_base', kernel, module);
  shell('objcopy', '--strip-debug', module);
  const args = ['extract', module, '--struct', 'own', '--json', '-'];
  const alone = domsched(args);
  t.is(alone.code, 1);
  const [option] = /--base/.exec(alone.stderr)!;
  const { code, stdout, stderr } = domsched([...args, option, kernel]);
  t.is(stderr, '');
  t.is(code, 0);
  t.deepEqual(Object.keys((JSON.parse(stdout) as KernelLayout).structs), ['list_head', 'own']);
});

test('types with names of Rust become modules', async (t) => {
  const builder = new BtfBuilder();
  const int = builder.int('u32', 4);
  const option = builder.record('struct', 'core::option::Option<u32>', 8, [['__0', int, 32]]);
  builder.record('struct', '{impl#0}', 8, [['type', option, 0]]);
  const kernel = addBtf(linkKernel(t, KERNEL_SOURCE));
  const [types, out] = [join(scratchFolder(t), 'rust.btf'), join(scratchFolder(t), 'generated')];
  writeFileSync(types, builder.bytes());
  shell('objcopy', `--update-section=.BTF=${types}`, kernel);
  const { code, stderr } = domsched(['extract', kernel, '--engine', 'btf', '--all', '--out', out]);
  t.is(code, 0, stderr);
  const [release] = readdirSync(out).filter((name) => !name.endsWith('.ts'));
  const { layout } = await import(join(out, release!, 'index.ts'));
  t.is(layout['core::option::Option<u32>'].__0.offset, 4);
  t.is(layout['{impl#0}'].type.struct, 'core::option::Option<u32>');
});

/** What rustc says of `enum E { A, B(u64) }` and `struct Wrapped<E>(E, u32)`, as LLVM takes it: sizes are in bits. */
const RUST_ENUM = `source_filename = "r.rs"
@value = global [24 x i8] zeroinitializer, !dbg !0
!llvm.module.flags = !{!20, !21}
!llvm.dbg.cu = !{!2}
!0 = !DIGlobalVariableExpression(var: !1, expr: !DIExpression())
!1 = distinct !DIGlobalVariable(name: "value", scope: !2, type: !4, isDefinition: true)
!2 = distinct !DICompileUnit(language: DW_LANG_Rust, file: !3, emissionKind: FullDebug, globals: !22)
!3 = !DIFile(filename: "r.rs", directory: "/")
!4 = !DICompositeType(tag: DW_TAG_structure_type, name: "Wrapped<E>", size: 192, elements: !5, identifier: "w")
!5 = !{!6, !7}
!6 = !DIDerivedType(tag: DW_TAG_member, name: "__0", scope: !4, baseType: !10, size: 128)
!7 = !DIDerivedType(tag: DW_TAG_member, name: "__1", scope: !4, baseType: !8, size: 32, offset: 128)
!8 = !DIBasicType(name: "u32", size: 32, encoding: DW_ATE_unsigned)
!9 = !DIBasicType(name: "u64", size: 64, encoding: DW_ATE_unsigned)
!10 = !DICompositeType(tag: DW_TAG_structure_type, name: "E", size: 128, elements: !11, identifier: "e")
!11 = !{!12}
!12 = !DICompositeType(tag: DW_TAG_variant_part, scope: !10, size: 128, elements: !13, identifier: "v", discriminator: !14)
!13 = !{!15, !16}
!14 = !DIDerivedType(tag: DW_TAG_member, scope: !10, baseType: !8, size: 32, flags: DIFlagArtificial)
!15 = !DIDerivedType(tag: DW_TAG_member, name: "A", scope: !12, baseType: !17, size: 128, extraData: i32 0)
!16 = !DIDerivedType(tag: DW_TAG_member, name: "B", scope: !12, baseType: !18, size: 128, extraData: i32 1)
!17 = !DICompositeType(tag: DW_TAG_structure_type, name: "A", scope: !10, size: 128, elements: !{}, identifier: "a")
!18 = !DICompositeType(tag: DW_TAG_structure_type, name: "B", scope: !10, size: 128, elements: !19, identifier: "b")
!19 = !{!23}
!20 = !{i32 7, !"Dwarf Version", i32 5}
!21 = !{i32 2, !"Debug Info Version", i32 3}
!22 = !{!0}
!23 = !DIDerivedType(tag: DW_TAG_member, name: "__0", scope: !18, baseType: !9, size: 64, offset: 64)
`;

test('enumerations of Rust, of which each variant has its own members, become modules of the right size', async (t) => {
  const folder = scratchFolder(t);
  const at = (name: string) => join(folder, name);
  writeFileSync(at('r.ll'), RUST_ENUM);
  shell('clang-14', '-Wno-override-module', '-c', at('r.ll'), '-o', at('r.o'));
  t.regex(shell('readelf', '--debug-dump=info', at('r.o')), /DW_TAG_variant_part/);
  shell('ld', '-e', '0', compile(t, KERNEL_SOURCE), at('r.o'), '-o', at('vmlinux'));
  const { code, stderr } = domsched(['extract', at('vmlinux'), '--all', '--out', at('generated')]);
  t.is(code, 0, stderr);
  const { layout } = await import(join(at('generated'), '2.6.16-fixture', 'index.ts'));
  t.deepEqual([layout.E.$size, layout['Wrapped<E>'].$size], [128 / 8, 192 / 8]);
  t.like(layout['Wrapped<E>'].__0, { offset: 0, size: 128 / 8, struct: 'E' });
  t.like(layout['Wrapped<E>'].__1, { offset: 128 / 8, size: 32 / 8 });
});

test('raw BTF is a kernel too', (t) => {
  const file = addBtf(linkKernel(t, KERNEL_SOURCE));
  const raw = join(scratchFolder(t), 'vmlinux-9.9.9.btf');
  shell('objcopy', '-O', 'binary', '--only-section=.BTF', '--set-section-flags', '.BTF=alloc', file, raw);
  const { code, stdout, stderr } = domsched(['extract', raw, '--json', '-']);
  t.is(stderr, '');
  t.is(code, 0);
  const layout = JSON.parse(stdout) as KernelLayout;
  // The name of a file says nothing of what is in it.
  t.is(layout.kernel.release, null);
  t.is(layout.kernel.banner, null);
  t.is(layout.kernel.buildId, null);
  t.is(layout.structs.rq?.sourceName, 'runqueue');
});

test('what does not say which kernel it is of becomes JSON, never modules', (t) => {
  const source = KERNEL_SOURCE.replace(/^const char linux_banner.*$/m, '');
  const out = join(scratchFolder(t), 'generated');
  for (const file of [compile(t, source), linkKernel(t, source)]) {
    const { code, stdout } = domsched(['extract', file, '--json', '-']);
    t.is(code, 0);
    const { kernel } = JSON.parse(stdout) as KernelLayout;
    t.deepEqual([kernel.release, kernel.banner], [null, null]);
    const refused = domsched(['extract', file, '--out', out]);
    t.is(refused.code, 1);
    t.regex(refused.stderr, /no banner.*--json/s);
    t.false(existsSync(out));
  }
});

test('a debug file alone is refused; beside its kernel it is the whole', (t) => {
  const whole = linkKernel(t, KERNEL_SOURCE);
  const place = scratchFolder(t);
  const debug = join(place, 'core.debug');
  shell('objcopy', '--only-keep-debug', whole, debug);
  const out = join(scratchFolder(t), 'generated');
  for (const how of [
    ['--json', '-'],
    ['--out', out],
  ]) {
    const { code, stdout, stderr } = domsched(['extract', debug, ...how]);
    t.is(code, 1);
    t.is(stdout, '');
    t.regex(stderr, /debug information alone.*build-id [0-9a-f]{40}.*beside it/s);
  }
  t.false(existsSync(out));
  // The advice: a stripped kernel beside it, under whatever name.
  shell('objcopy', '--strip-all', whole, join(place, 'vmlinux'));
  const { code, stdout } = domsched(['extract', debug, '--json', '-']);
  t.is(code, 0);
  const { source, ...found } = JSON.parse(stdout) as KernelLayout;
  const { source: _, ...expected } = JSON.parse(
    domsched(['extract', whole, '--json', '-']).stdout,
  ) as KernelLayout;
  t.is(source.file, 'core.debug');
  t.deepEqual(found, expected);
});

test('named structures come with what they embed, by either spelling', (t) => {
  const file = linkKernel(t, KERNEL_SOURCE);
  for (const name of ['rq', 'runqueue']) {
    const { stdout } = domsched(['extract', file, '--struct', name, '--json', '-']);
    t.deepEqual(Object.keys((JSON.parse(stdout) as KernelLayout).structs).sort(), [
      'list_head',
      'prio_array',
      'rq',
    ]);
  }
  const { stdout } = domsched(['extract', file, '--struct', 'spinlock_t', 'list_head', '--json', '-']);
  t.deepEqual(Object.keys((JSON.parse(stdout) as KernelLayout).structs).sort(), ['list_head', 'spinlock_t']);
});

test('all structures, each definition of a name that has two', (t) => {
  const file = linkKernel(t, `${KERNEL_SOURCE} struct extra { int x; } extra;`);
  const { stdout } = domsched(['extract', file, '--all', '--json', '-']);
  const names = Object.keys((JSON.parse(stdout) as KernelLayout).structs);
  t.true(names.includes('extra'));
  t.true(names.includes('rq'));
});

test('a configuration beside the file is part of the layout', (t) => {
  const config = join(scratchFolder(t), 'config');
  writeFileSync(
    config,
    '#\n# Automatically generated\n#\nCONFIG_SMP=y\n# CONFIG_PREEMPT is not set\nCONFIG_HZ=250\n',
  );
  const file = linkKernel(t, KERNEL_SOURCE);
  const { stdout } = domsched(['extract', file, '--config', config, '--json', '-']);
  t.is((JSON.parse(stdout) as KernelLayout).config?.CONFIG_HZ, '250');
});

test('a JSON file appears whole: mode and link of the one before are kept, nothing else is left', (t) => {
  const folder = scratchFolder(t);
  const file = linkKernel(t, KERNEL_SOURCE);
  const real = join(folder, 'real.json');
  const link = join(folder, 'link.json');
  writeFileSync(real, 'old');
  chmodSync(real, 0o640);
  symlinkSync('real.json', link);
  const { code, stdout, stderr } = domsched(['extract', file, '--json', link]);
  t.deepEqual([code, stdout, stderr], [0, '', '']);
  t.is((JSON.parse(readFileSync(real, 'utf8')) as KernelLayout).format, 'domsched-layout/1');
  t.is(statSync(real).mode & 0o777, 0o640);
  t.true(lstatSync(link).isSymbolicLink());
  t.deepEqual(readdirSync(folder).sort(), ['link.json', 'real.json']);
});

test('generation, then a check that agrees, then checks that do not; no check writes', (t) => {
  const out = join(scratchFolder(t), 'generated');
  const file = linkKernel(t, KERNEL_SOURCE);
  const generated = domsched(['extract', file, '--out', out]);
  t.is(generated.code, 0, generated.stderr);
  t.is(generated.stdout, '');
  t.regex(
    generated.stderr,
    /^2\.6\.16-fixture: \d+ structures, \d+ symbols \(dwarf\) -> .*2\.6\.16-fixture\n$/,
  );
  const before = snapshot(out);
  t.true(Object.keys(before).includes('2.6.16-fixture/index.ts'));
  t.true(Object.keys(before).some((name) => /^structs\/rq\.[0-9a-f]+\.ts$/.test(name)));

  const agreed = domsched(['extract', file, '--out', out, '--check']);
  t.is(agreed.code, 0, agreed.stdout);
  t.deepEqual(snapshot(out), before);

  const quiet = domsched(['extract', file, '--out', out, '--quiet']);
  t.deepEqual([quiet.code, quiet.stdout, quiet.stderr], [0, '', '']);
  t.deepEqual(snapshot(out), before);

  const other = linkKernel(
    t,
    KERNEL_SOURCE.replace('unsigned long nr_running;', 'unsigned long more, nr_running;'),
  );
  const differs = domsched(['extract', other, '--out', out, '--check']);
  t.is(differs.code, 1);
  t.regex(differs.stdout, /rq\.nr_running/);
  t.regex(differs.stderr, /^domsched: the generated modules differ .*\[check-mismatch\]\n$/);
  t.deepEqual(snapshot(out), before);
});

test('generated modules have the structures asked for besides the scheduler’s', (t) => {
  const out = join(scratchFolder(t), 'generated');
  const file = linkKernel(t, `${KERNEL_SOURCE} struct extra { int x; } extra;`);
  t.is(domsched(['extract', file, '--out', out, '--struct', 'extra']).code, 0);
  const files = readdirSync(join(out, 'structs'));
  for (const name of ['extra', 'rq', 'task_struct'])
    t.true(
      files.some((file) => file.startsWith(`${name}.`)),
      name,
    );
});

test('cross-check: engines agree, and a table says what was compared', (t) => {
  const file = addBtf(linkKernel(t, KERNEL_SOURCE));
  const { code, stdout, stderr } = domsched(['extract', file, '--cross-check']);
  t.is(code, 0, stdout + stderr);
  for (const row of [/dwarf .*\d+/, /btf .*\d+ .*dwarf .* 0 /]) t.regex(stdout, row);
  const rows = JSON.parse(domsched(['extract', file, '--cross-check', '--json', '-']).stdout) as {
    engine: string;
    members: number;
    disagreements: unknown[];
  }[];
  for (const { members, disagreements } of rows) {
    t.true(members > 20);
    t.deepEqual(disagreements, []);
  }
});

test('cross-check: a BTF of another build is caught, member by member', (t) => {
  const file = addBtf(linkKernel(t, KERNEL_SOURCE));
  const other = addBtf(linkKernel(t, KERNEL_SOURCE.replace('int pid;', 'long pid;')));
  const btf = join(scratchFolder(t), 'btf');
  shell('objcopy', '--dump-section', `.BTF=${btf}`, other);
  shell('objcopy', '--update-section', `.BTF=${btf}`, file);
  const { code, stdout, stderr } = domsched(['extract', file, '--cross-check']);
  t.is(code, 1);
  t.regex(stdout, /task_struct\.pid: size is 4 \(dwarf\), 8 \(btf\)/);
  t.regex(stderr, /\[cross-check-mismatch\]\n$/);
});

test('wrong usage is exit code 2 and one hint', (t) => {
  const file = linkKernel(t, KERNEL_SOURCE);
  const wrong = [
    ['extract'],
    ['extract', file, 'another'],
    ['extract', file, '--bogus'],
    ['extract', file, '--engine', 'magic'],
    ['extract', file, '--format', 'xml', '--json', '-'],
    ['extract', file, '--format', 'isf'],
    ['extract', file, '--all', '--struct', 'rq'],
    ['extract', file, '--check', '--json', '-'],
    ['extract', file, '--check', '--cross-check'],
    ['extract', file, '--struct'],
  ];
  for (const args of wrong) {
    const { code, stdout, stderr } = domsched(args);
    t.is(code, 2, args.join(' '));
    t.is(stdout, '');
    t.regex(stderr, /^error: /);
  }
});

/** Each refusal: how to make its input, and what the command line adds. */
const refusals: Record<string, (t: ExecutionContext, folder: string) => string[]> = {
  'file-not-found': (_, folder) => [join(folder, 'none')],
  'file-unreadable': (_, folder) => [folder],
  'not-a-kernel': (_, folder) => {
    writeFileSync(join(folder, 'text'), 'a text file\n'.repeat(100));
    return [join(folder, 'text')];
  },
  'not-elf64': (t) => {
    const file = linkKernel(t, KERNEL_SOURCE);
    const bytes = readFileSync(file);
    bytes[4] = 1;
    writeFileSync(file, bytes);
    return [file];
  },
  'wrong-architecture': (t) => {
    const file = linkKernel(t, KERNEL_SOURCE);
    const bytes = readFileSync(file);
    bytes.writeUInt16LE(183, 18);
    writeFileSync(file, bytes);
    return [file];
  },
  truncated: (t) => {
    const file = linkKernel(t, KERNEL_SOURCE);
    truncateSync(file, statSync(file).size - 500);
    return [file];
  },
  'corrupt-elf': (t) => {
    const file = linkKernel(t, KERNEL_SOURCE);
    const bytes = readFileSync(file);
    bytes.writeUInt16LE(7, 58);
    writeFileSync(file, bytes);
    return [file];
  },
  'corrupt-dwarf': (t) => {
    const file = linkKernel(t, KERNEL_SOURCE);
    const bytes = readFileSync(file);
    const [, offset] = / \.debug_info +PROGBITS +\w+ +(\w+)/.exec(shell('readelf', '-SW', file))!;
    bytes.fill(0xff, Number.parseInt(offset!, 16), Number.parseInt(offset!, 16) + 64);
    writeFileSync(file, bytes);
    return [file];
  },
  'corrupt-btf': (_, folder) => {
    const file = join(folder, 'vmlinux');
    writeFileSync(file, buildElf([{ name: '.BTF', bytes: Buffer.alloc(64, 0xee) }]));
    return [file];
  },
  'unsupported-btf': (_, folder) => {
    const builder = new BtfBuilder();
    builder.type(99, { name: 'newer' });
    const file = join(folder, 'vmlinux.btf');
    writeFileSync(file, builder.bytes());
    return [file];
  },
  'btf-base': (t, folder) => {
    const file = join(folder, 'module.o');
    copyFileSync(compile(t, 'struct own { int a; } own;'), file);
    shell('pahole', '--btf_encode_force', '-J', '--btf_base', addBtf(linkKernel(t, KERNEL_SOURCE)), file);
    shell('objcopy', '--strip-debug', file);
    return [file];
  },
  'corrupt-archive': (t, folder) => {
    const packed = join(folder, 'vmlinux.gz');
    copyFileSync(linkKernel(t, KERNEL_SOURCE), join(folder, 'vmlinux'));
    shell('gzip', join(folder, 'vmlinux'));
    const bytes = readFileSync(packed);
    bytes.fill(0xff, 1000, 1100);
    writeFileSync(packed, bytes);
    return [packed];
  },
  'no-debug-information': (t) => [linkKernel(t, KERNEL_SOURCE, ['-g0'])],
  'struct-not-found': (t) => [linkKernel(t, KERNEL_SOURCE), '--struct', 'task_strct'],
  'engine-unavailable': (t) => [linkKernel(t, KERNEL_SOURCE), '--engine', 'btf'],
};

for (const [code, make] of Object.entries(refusals)) {
  test(`refused with nothing changed: ${code}`, (t) => {
    const folder = scratchFolder(t);
    const out = join(folder, 'generated');
    const json = join(folder, 'layout.json');
    mkdirSync(out);
    writeFileSync(json, 'as it was');
    const args = make(t, folder);
    const before = snapshot(folder);
    for (const output of [
      ['--json', json],
      ['--json', '-'],
      ['--out', out],
    ]) {
      const result = domsched(['extract', ...args, ...output]);
      t.is(result.code, 1, result.stderr);
      t.is(result.stdout, '');
      t.regex(result.stderr, new RegExp(`^domsched: [^\\n]+ \\[${code}\\]\\n$`));
      t.deepEqual(snapshot(folder), before);
    }
  });
}

test('a structure not found comes with the nearest names; missing debug information with the package', (t) => {
  const missing = domsched([
    'extract',
    linkKernel(t, KERNEL_SOURCE),
    '--struct',
    'task_strct',
    '--json',
    '-',
  ]);
  t.regex(missing.stderr, /no structure task_strct \(nearest: task_struct/);
  const bare = domsched(['extract', linkKernel(t, KERNEL_SOURCE, ['-g0']), '--json', '-']);
  t.regex(bare.stderr, /linux-image-2\.6\.16-fixture-dbg/);
});

test('two different definitions in two units: both are named', (t) => {
  const folder = scratchFolder(t);
  const first = compile(t, KERNEL_SOURCE);
  const second = compile(t, 'struct extra { int a; }; struct extra one;');
  const third = compile(t, 'struct extra { long b; }; struct extra two;');
  const file = join(folder, 'vmlinux');
  shell('ld', '-e', '0', first, second, third, '-o', file);
  const result = domsched(['extract', file, '--struct', 'extra', '--json', '-']);
  t.is(result.code, 1);
  t.regex(
    result.stderr,
    /extra has two different definitions: 4 bytes in .*, 8 bytes in .*\[struct-conflict\]\n$/,
  );
  // What the message advises, as it stands there.
  const choices = [...result.stderr.matchAll(/--struct (\S+@\S+)/g)].map(([, choice]) => choice!);
  const sizes = choices.map((choice) => {
    const { code, stdout, stderr } = domsched(['extract', file, '--struct', choice, '--json', '-']);
    t.is(code, 0, stderr);
    return (JSON.parse(stdout) as KernelLayout).structs.extra?.size;
  });
  t.deepEqual(sizes, [4, 8]);
  const all = JSON.parse(domsched(['extract', file, '--all', '--json', '-']).stdout) as KernelLayout;
  t.deepEqual([all.structs.extra?.size, all.structs.extra___2?.size].sort(), [4, 8]);
  t.is(all.structs.extra___2?.sourceName, 'extra');
});

test('no space left, no folder, a folder instead of a file', (t) => {
  const file = linkKernel(t, KERNEL_SOURCE);
  const folder = scratchFolder(t);
  const cases: [string, string][] = [
    ['/dev/full', 'no-space'],
    [join(folder, 'none', 'layout.json'), 'output-failed'],
    [folder, 'output-failed'],
  ];
  for (const [path, code] of cases) {
    const result = domsched(['extract', file, '--json', path]);
    t.is(result.code, 1);
    t.regex(result.stderr, new RegExp(`^domsched: .*\\[${code}\\]\\n$`));
  }
  t.deepEqual(readdirSync(folder), []);
});

test('no space left in the middle of a JSON file: the one before stays, and nothing else', (t) => {
  const file = linkKernel(t, KERNEL_SOURCE);
  const folder = scratchFolder(t);
  writeFileSync(join(folder, 'layout.json'), 'as it was');
  const before = snapshot(folder);
  const program = new URL('../../domsched.ts', import.meta.url).pathname;
  const args = [process.execPath, program, 'extract', file, '--all', '--json', join(folder, 'layout.json')];
  // A limit on the size of files: 4 KiB.
  const limited = 'trap "" XFSZ; ulimit -f 4; exec "$@"';
  const { status, stderr } = spawnSync('bash', ['-c', limited, 'bash', ...args], { encoding: 'utf8' });
  t.is(status, 1, stderr);
  t.regex(stderr, /^domsched: no space left to write .*layout\.json; .*\[no-space\]\n$/);
  t.deepEqual(snapshot(folder), before);
});

test('a reader that goes away is no crash', (t) => {
  const file = linkKernel(t, KERNEL_SOURCE);
  const root = new URL('../../', import.meta.url).pathname;
  const command = `"${process.execPath}" "${root}domsched.ts" extract "${file}" --all --json - 2>&1 >/dev/full | cat`;
  t.regex(shell('sh', '-c', command), /^domsched: .*\[no-space\]\n$/);
});

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`${signal} in the middle: nothing changed, one line, exit code 1`, async (t) => {
    // A file far over 2 GiB and without a build-id: its digest takes seconds, in which the signal arrives.
    const file = linkKernel(t, KERNEL_SOURCE);
    shell('objcopy', '--remove-section=.note.gnu.build-id', file);
    truncateSync(file, 24 * 2 ** 30);
    const folder = scratchFolder(t);
    const json = join(folder, 'layout.json');
    writeFileSync(json, 'as it was');
    const result = await interruptDomsched(['extract', file, '--json', json], signal, file);
    t.is(result.signal, null);
    t.is(result.code, 1, result.stderr);
    t.is(result.stderr, `domsched: interrupted by ${signal}; nothing was changed [interrupted]\n`);
    t.deepEqual(snapshot(folder), { 'layout.json': Buffer.from('as it was').toString('base64') });
  });
}

/** What a command loads, one URL a line. */
function loadedBy(
  t: ExecutionContext,
  run: (args: readonly string[], options: { nodeArgs: readonly string[] }) => { code: number | null },
): string {
  const log = join(scratchFolder(t), 'loaded');
  const hook = `
    import { registerHooks } from 'node:module';
    import { appendFileSync } from 'node:fs';
    registerHooks({ load(url, context, next) { appendFileSync(${JSON.stringify(log)}, url + '\\n'); return next(url, context); } });`;
  const nodeArgs = ['--import', `data:text/javascript,${encodeURIComponent(hook)}`];
  t.is(run(['extract', linkKernel(t, KERNEL_SOURCE), '--json', '-'], { nodeArgs }).code, 0);
  t.true(existsSync(log));
  return readFileSync(log, 'utf8');
}

const ONLY_OTHER_OUTPUTS =
  /ts-morph|typescript|\/ora\/|\/execa\/|\/zod\/|cli-table3|\/codegen\/|\/runtime\/(?!command\/|version\.)/;

test('JSON on standard output loads none of what only other outputs need', (t) => {
  const loaded = loadedBy(t, domsched);
  t.regex(loaded, /extractor\/run\.ts/);
  t.notRegex(loaded, ONLY_OTHER_OUTPUTS);
});

test('the compiled program extracts from its bundle, and loads but one other module of its own', (t) => {
  const loaded = loadedBy(t, compiledDomsched);
  t.regex(loaded, /\/dist\/bundle\/program\.cjs$/m);
  t.regex(loaded, /node_modules\/commander\//);
  t.notRegex(loaded, ONLY_OTHER_OUTPUTS);
  // But for the class by which the program knows its own errors, which the bundle shares with it.
  t.notRegex(loaded, /\/dist\/(?!domsched\.js$|bundle\/|extractor\/known-error\.js$)/m);
});
