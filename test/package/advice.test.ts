/** Advice is code: each command that a message recommends has been run on what brings the message. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import ts from 'typescript';
import { projectDirectory } from '../../kernels/paths.ts';
import { makeProgram } from '../../program.ts';
import { findProcess } from '../../runtime/guest/find-process.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { shellWord } from '../../runtime/shell-word.ts';
import { KERNEL_SOURCE, linkKernel, scratchFolder } from '../extractor/fixture.ts';
import { compiledDomsched as domsched } from '../extractor/run-cli.ts';
import { advisedIn, installedPrograms, messages, textsOf } from './advised.ts';

/** Where it is run: a file of tests and a part of a test's title; or why it cannot be. */
type Shown = readonly [file: string, title: string] | { readonly because: string };

const EXTRACT = ['package/advice.test.ts', 'what extract advises'] as const;
const COMMANDS = ['package/advice.test.ts', 'what the commands advise'] as const;
const CONFLICT = ['extractor/command.test.ts', 'two different definitions in two units'] as const;
const SOCKETS = ['live/qmp-sockets.test.ts', 'why a socket does not answer'] as const;
const DEBUGINFOD = ['extractor/debuginfod.test.ts', 'a guest that says nothing of itself'] as const;
const LIBVIRT = ['live/libvirt.test.ts', 'a machine of libvirt'] as const;
const XL = ['live/xen.test.ts', 'xl saves a domain'] as const;
const DUMPS = ['live/o1-dump.test.ts', 'ps of ELF'] as const;
const HAND = 'domsched reads no such file, and what writes or reads them is in no archive that tests reach';

const TABLE: readonly (readonly [advice: RegExp, shown: Shown])[] = [
  [/--engine auto takes one that can/, EXTRACT],
  [/--engine dwarf( can)?$/, EXTRACT],
  [/give that file, or its folder with --debug-root/, EXTRACT],
  [/extract it without --check (first|to generate them anew)/, EXTRACT],
  [/name another with --out\.$/, EXTRACT],
  [/dpkg-deb --extract FILE FOLDER/, EXTRACT],
  [/domsched extract \u2026 \u2026$/, EXTRACT],
  [/domsched extract (vmlinux\n?$|FILE adds one)/, EXTRACT],
  [/make it with domsched extract \u2026/, EXTRACT],
  [/--format isf needs --json FILE/, EXTRACT],
  [/a file, --from DOMAIN or --build-id ID/, ['live/unknown-kernel.test.ts', 'a kernel without a layout']],
  [/domsched extract --build-id \u2026, by DEBUGINFOD_URLS/, DEBUGINFOD],
  [/debuginfod-find is not installed: apt-get install debuginfod/, DEBUGINFOD],
  [/take them all with --all/, CONFLICT],
  [
    /write what it has with --json$|had as JSON \(--json FILE\)/,
    ['extractor/command.test.ts', 'what does not say which'],
  ],
  [
    /again with --symbols and the System\.map/,
    ['extractor/command.test.ts', 'a stripped kernel is read by its BTF'],
  ],
  [/--base( |$)/, ['extractor/command.test.ts', "a module's BTF is read with the kernel that it asks for"]],
  [/add --config with the kernel's/, ['extractor/elf/beside.test.ts', 'kallsyms beside BTF alone']],
  [/set TMPDIR to a bigger place/, ['extractor/elf/packed.test.ts', 'no space left is said as such']],
  [/apt-get install \u2026/, ['extractor/elf/packed.test.ts', 'a compression whose program is missing']],
  [/apt install gdb/, ['extractor/gdb/gdb.test.ts', 'without gdb the engine says how to get it']],
  [/\((\w+ )*dwz -m\)/, ['extractor/dwarf/companions.test.ts', 'that dwz shares between files']],
  [
    /CONFIG_DEBUG_INFO_SPLIT, -gsplit-dwarf/,
    ['extractor/dwarf/companions.test.ts', '.dwo files say what the whole says'],
  ],

  [/domsched --help lists/, COMMANDS],
  [/(say|for QEMU add .* to) --connect|--connect says where to look/, COMMANDS],
  [/(see )?domsched domains/, COMMANDS],
  [/domsched doctor says/, COMMANDS],
  [/domsched ps \u2026 lists/, ['live/o1-commands.test.ts', 'a process is held']],
  [/a domain and a process, or --all/, ['live/o1-commands.test.ts', 'a process is held']],
  [/domsched report draws it/, ['live/o1-trace.test.ts', 'a trace shows a held process']],
  [/domsched release --all/, ['live/daemon.test.ts', 'killed']],
  [
    /domsched (run -c|fleet status)/,
    ['runtime/command/fleet-processes.test.ts', 'what the fleet’s commands advise'],
  ],
  [/domsched fleet policy set FILE/, ['runtime/fleet/policy.test.ts', 'set, get, history, rollback']],
  [/(add|with) --fleet/, ['runtime/command/blame-fleet.test.ts', 'what no host has']],
  [/domsched ps --fleet lists/, ['runtime/command/blame-fleet.test.ts', 'what no host has']],
  [/use --pause/, ['live/ps-debian.test.ts', "ps shows what the guest's own /proc says"]],
  [/--force holds it all the same/, ['runtime/surgeon/refusal.test.ts', 'is refused']],
  [
    /renice (the process|it) without --group/,
    ['live/debian-surgery-command.test.ts', 'domsched hold and release'],
  ],
  [/DOMSCHED_RUNTIME_DIR/, ['runtime/runtime-directory.test.ts', 'what others may write to']],

  [/chmod 600 \u2026/, ['runtime/web/server.test.ts', 'a token that others may read']],
  [/head -c 32 \S+ \| base64 > \u2026/, ['runtime/web/server.test.ts', 'a token that others may read']],
  [/npm run build/, ['package/package.test.ts', 'the program works']],
  [/kill -CONT \u2026/, SOCKETS],
  [/kill -CONT \u2026/, LIBVIRT],
  [/-qmp( unix:\S+)?/, SOCKETS],
  [/-name NAME,debug-threads=on/, ['live/any-host.test.ts', 'machines by their processes']],
  [/virsh resume \u2026/, LIBVIRT],
  [/virsh restore --paused \u2026, and then virsh dump --memory-only NAME \u2026/, LIBVIRT],
  [/virsh dump --memory-only/, LIBVIRT],
  [/xl restore \u2026, and once it runs xl dump-core NAME \u2026/, XL],
  [/xl dump-core/, XL],
  [/mount -t xenfs xenfs \/proc\/xen/, ['package/advice.test.ts', 'what is advised in a dom0']],
  [/modprobe xen-privcmd/, ['package/advice.test.ts', 'what is advised in a dom0']],
  [/lib(xen|xentool)\w+\d/, ['package/advice.test.ts', 'libraries and programs']],

  [/-S -incoming \u2026, and in its monitor give dump-guest-memory \u2026/, DUMPS],
  [/exec:cat \u2026/, DUMPS],
  [/dump-guest-memory in the monitor/, DUMPS],
  [/--connect dump:FILE/, DUMPS],
  [/info mtree -f of the monitor/, ['live/any-host.test.ts', 'machines by their processes']],
  [/(gzip|zstd|xz|bzip2|lz4|lzop) -dc/, ['runtime/hypervisor/foreign-dumps.test.ts', 'a dump packed with']],
  [/let avml-convert make/, { because: `${HAND}: avml-convert` }],
  [/with its debugger \(dumpvmcore\)/, { because: `${HAND}: VirtualBox` }],
  [/start the machine from that with -loadvm/, DUMPS],
  [/take it again with -z \(kdump-zlib\), or without a format/, DUMPS],
  [/take it again without -w$/, DUMPS],
];

/** What names a command without telling anybody to type it. */
const TOLD_ONLY: readonly RegExp[] = [
  /^info \w+ -a?f?$|info registers -a (lists|has|numbers)|info mtree -f shows/,
  /^QEMU -machine/,
  /as virsh dump writes without --memory-only|\(virsh save\)|\(xl save\)|take it again without --compress/,
  /what domsched trace, or the daemon, wrote|instead of a file, the (kernel that runs|debug file .*)|^for --from|^\[--connect <place>\]/,
];

async function vocabulary() {
  const listed = /^PACKAGES := ((?:.*\\\n)*.*)$/m.exec(
    readFileSync(path.join(projectDirectory, 'Makefile'), 'utf8'),
  )![1]!;
  const program = await makeProgram();
  return {
    commands: new Set([...program.commands.map((command) => command.name()), '--help']),
    programs: installedPrograms(listed.replaceAll('\\\n', ' ').trim().split(/\s+/)),
  };
}

function spans(text: string, pattern: RegExp): [number, number][] {
  return [...text.matchAll(new RegExp(pattern, 'g'))].map(({ 0: found, index }) => [
    index,
    index + found.length,
  ]);
}

test('every command that a message recommends is in the table, and nothing else is', async (t) => {
  const words = await vocabulary();
  const used = new Set<RegExp>();
  for (const { file, line, text } of messages()) {
    for (const { word, start, end } of advisedIn(text, words)) {
      const rows = [...TABLE.map(([advice]) => advice), ...TOLD_ONLY].filter((advice) =>
        spans(text, advice).some(([from, to]) => from < end && to > start),
      );
      t.true(
        rows.length > 0,
        `${file}:${line} speaks of "${word}", and no test here says who runs it: ${text}`,
      );
      for (const row of rows) used.add(row);
    }
  }
  for (const row of [...TABLE.map(([advice]) => advice), ...TOLD_ONLY])
    t.true(used.has(row), `no message says ${row}`);
});

test('every row of the table names a test that there is', (t) => {
  for (const [advice, shown] of TABLE) {
    if ('because' in shown) {
      t.log(`not run here: ${advice.source}: ${shown.because}`);
      continue;
    }
    const [file, title] = shown;
    const text = readFileSync(path.join(projectDirectory, 'test', file), 'utf8');
    const titles = [...text.matchAll(/test(?:\.serial)?\(\s*(['"`])((?:\\.|(?!\1).)*)\1/g)].map(
      ([, , found]) => found!,
    );
    t.true(
      titles.some((found) => found.includes(title)),
      `${file} has no test "${title}…" (for ${advice})`,
    );
  }
});

test('advice is found wherever it stands in the source', async (t) => {
  const words = await vocabulary();
  const found = (source: string) =>
    textsOf(ts.createSourceFile('x.ts', source, ts.ScriptTarget.Latest, true)).flatMap(({ text }) =>
      advisedIn(text, words).map(({ word }) => word),
    );
  t.deepEqual(found("throw new Error('so: ' + `$" + "{a}; run it with ` + 'readelf -S')"), ['-S', 'readelf']);
  t.deepEqual(found('f(`x $' + "{y ? `, or domsched doctor says` : 'else'} z`)"), ['domsched doctor']);
  t.deepEqual(found("const a = ok ? 'all is well' : 'try it with --pause again'"), ['--pause']);
  t.deepEqual(found("import x from './umount it.ts'; // umount x\n.option('--json <file>')"), []);
  t.deepEqual(found("x('domsched reads files; it takes time to find more')"), []);
});

/** Runs the program, which has to refuse, and gives what it says. */
function refused(t: ExecutionContext, args: readonly string[], message: RegExp): RegExpExecArray {
  const { code, stdout, stderr } = domsched(args);
  t.not(code, 0, args.join(' '));
  const match = message.exec(stdout + stderr);
  t.truthy(match, stdout + stderr);
  return match!;
}

function works(t: ExecutionContext, args: readonly string[]): string {
  const { code, stdout, stderr } = domsched(args);
  t.is(code, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
}

test('what extract advises: engines, debug files, places, packages', async (t) => {
  const folder = scratchFolder(t);
  const at = (name: string) => path.join(folder, name);
  const kernel = linkKernel(t, `${KERNEL_SOURCE}struct extra { int here; } extra;`);
  const json = ['--json', '-'];
  refused(t, ['extract', kernel, '--engine', 'btf', ...json], /; --engine auto takes one that can/);
  works(t, ['extract', kernel, '--engine', 'auto', ...json]);

  const split = linkKernel(t, KERNEL_SOURCE, ['-g', '-gsplit-dwarf']);
  refused(t, ['extract', split, '--engine', 'gdb', ...json], /; --engine dwarf can/);
  works(t, ['extract', split, '--engine', 'dwarf', ...json]);

  // Where Debian's package has it, and a folder of any other name.
  execFileSync('objcopy', ['--strip-debug', kernel, at('stripped')]);
  const bare = refused(
    t,
    ['extract', at('stripped'), ...json],
    /linux-image-\S+-dbg .* as \/usr\/lib\/debug\/(boot\/vmlinux-\S+); give that file, or its folder with --debug-root/,
  );
  const debug = at(`package/usr/lib/debug/${bare[1]}`);
  mkdirSync(path.dirname(debug), { recursive: true });
  writeFileSync(debug, readFileSync(kernel));
  for (const root of [path.dirname(debug), at('package/usr/lib/debug')]) {
    works(t, ['extract', at('stripped'), '--debug-root', root, ...json]);
  }

  mkdirSync(at('package/DEBIAN'));
  writeFileSync(
    at('package/DEBIAN/control'),
    'Package: kernel\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n',
  );
  execFileSync('dpkg-deb', ['--build', at('package'), at('a kernel.deb')], { stdio: 'ignore' });
  const [, unpack] = refused(
    t,
    ['extract', at('a kernel.deb'), ...json],
    /\(of a \.deb: (dpkg-deb .*) FILE FOLDER\)/,
  );
  execFileSync('sh', ['-c', `${unpack} "$1" "$2"`, 'sh', at('a kernel.deb'), at('unpacked')]);
  const unpacked = at(`unpacked/usr/lib/debug/${bare[1]}`);

  // What a kernel whose layout is not known is told, of the file out of its package.
  writeFileSync(at('file'), '');
  refused(t, ['extract', unpacked, '--out', at('file/out')], /or name another with --out/);
  const out = ['--out', at('out')];
  refused(t, ['extract', unpacked, ...out, '--check'], /extract it without --check first/);
  works(t, ['extract', unpacked, ...out]);
  works(t, ['extract', unpacked, ...out, '--check']);

  // A structure that was not asked for, in the folder of the file.
  const [known] = await knownKernels([at('out/registry.ts')]);
  const layout = await known!.load();
  const { message } = t.throws(() => layout.field('extra', 'here'));
  const [, advised] = /Extract it with: domsched (extract .* --struct extra)$/.exec(message)!;
  const { code, stderr } = domsched([...advised!.split(' '), '--out', at('again')], {
    cwd: path.dirname(unpacked),
  });
  t.is(code, 0, stderr);
  const [extracted] = await knownKernels([at('again/registry.ts')]);
  t.is((await extracted!.load()).field('extra', 'here').size, 4);

  refused(t, ['extract', unpacked, '--format', 'isf'], /--format isf needs --json FILE/);
  works(t, ['extract', unpacked, '--format', 'isf', '--json', at('isf.json')]);
  t.true(existsSync(at('isf.json')));
});

test('what the commands advise: where to look, and how to ask', async (t) => {
  refused(t, ['frobnicate'], /\(domsched --help lists the commands\)/);
  const help = works(t, ['--help']);
  refused(
    t,
    ['ps', 'nowhere'],
    /; domsched domains lists those that there are, --connect says where to look/,
  );
  for (const command of ['domains', 'doctor']) t.regex(help, new RegExp(`^ {2}${command}\\b`, 'm'));
  t.regex(domsched(['domains']).stdout, /--connect says where to look; domsched doctor says/);
  t.regex(domsched(['doctor']).stdout, /libdwarf|layouts/);
  t.regex(works(t, ['domains', '--connect', 'qemu:unix:/nowhere']), /\bnowhere\b/);
});

test('a name in a command is one word of it, whatever is in it', (t) => {
  for (const name of ['web', 'two words', "it's", '$(reboot)', 'a;b', '`id`', '-x', 'größe*']) {
    t.is(execFileSync('sh', ['-c', `printf %s ${shellWord(name)}`], { encoding: 'utf8' }), name);
  }
  const { message } = t.throws(() => findProcess('web;reboot', [], 'x'));
  t.regex(message, /domsched ps 'web;reboot' lists/);
});

test('libraries and programs that are to be installed are in the packages that are named', async (t) => {
  const words = await vocabulary();
  const named = messages().flatMap(({ text }) =>
    advisedIn(text, words)
      .map(({ word }) => word)
      .filter((word) => /^lib/.test(word)),
  );
  t.true(named.length > 0);
  for (const debian of named) {
    const [, library, version] = /^(lib[a-z]+)(\d+)$/.exec(debian)!;
    const files = execFileSync('dpkg-query', ['-L', debian], { encoding: 'utf8' });
    t.regex(files, new RegExp(`/${library}\\.so\\.${version}$`, 'm'), debian);
  }
  for (const [debian, program] of [
    ['debuginfod', 'debuginfod-find'],
    ['gdb', 'gdb'],
  ] as const) {
    const files = execFileSync('dpkg-query', ['-L', debian], { encoding: 'utf8' });
    t.regex(files, new RegExp(`bin/${program}$`, 'm'), debian);
  }
});

test('what is advised in a dom0 is what our dom0 does', (t) => {
  const tree = readFileSync(path.join(projectDirectory, 'test/live/xen-tree.ts'), 'utf8');
  const xen = readFileSync(path.join(projectDirectory, 'runtime/hypervisor/xen/dom0.ts'), 'utf8');
  const advice = [...xen.matchAll(/advice: '((?:mount|modprobe) .*)'/g)].map(([, command]) => command!);
  t.is(advice.length, 2);
  const [mount, modprobe] = advice;
  t.regex(tree, new RegExp(`^${mount}$`, 'm'));
  // Its init has insmod alone: of modprobe's word we see that the kernel's package has a module of that name, in which
  // the kernel takes - and _ for the same.
  const module = modprobe!.split(' ').at(-1)!.replaceAll('-', '_');
  const modules = path.join(projectDirectory, '.cache/xen/current/modules');
  if (!existsSync(modules)) return t.log(`not looked for: ${module}.ko, which \`make xen\` brings`);
  t.true(existsSync(path.join(modules, `${module}.ko`)));
});
