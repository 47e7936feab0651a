import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { dwarfEngine } from '../../../extractor/dwarf/engine.ts';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import type { EngineResult, ExtractRequest } from '../../../extractor/engine.ts';
import { ExtractError } from '../../../extractor/error.ts';
import { scratch } from '../elf/scratch.ts';
import { tool } from '../elf/tools.ts';

const STRUCTS = `
typedef struct { int counter; } atomic_t;
enum colour { RED, GREEN = 7 };
struct pair { char first; long second; };
struct rq { unsigned a:3, b:7; union { int u; struct { short s1, s2; }; }; struct pair in[3]; enum colour colour;
  atomic_t usage; struct rq *self; const char *const *text; };
struct task_struct { struct rq *rq; struct pair pair; void (*call)(struct rq *, int); char comm[16]; };
`;
const SOURCES: Readonly<Record<string, string>> = {
  'kernel/sched/core.c': `${STRUCTS}struct rq one; int other(void); int main(void) { return one.a + other(); }`,
  'other.c': `${STRUCTS}struct task_struct two; struct only { int here; } three;
    int other(void) { return two.comm[0] + three.here; }`,
};

async function read(
  path: string,
  structs: ExtractRequest['structs'] = 'all',
  debugRoots: string[] = [],
): Promise<EngineResult> {
  await using file = await openKernelFile(path, { debugRoots });
  return await dwarfEngine.extract(file, { structs, enums: [], required: structs === 'all' ? [] : structs });
}

function compile(
  at: (name: string) => string,
  name: string,
  compiler: string,
  flags: readonly string[],
): string {
  const objects = Object.entries(SOURCES).map(([source, text]) => {
    mkdirSync(dirname(at(source)), { recursive: true });
    writeFileSync(at(source), text);
    const object = at(`${name}-${source.replaceAll('/', '-')}.o`);
    tool(compiler, '-g', ...flags, '-c', at(source), '-o', object);
    return object;
  });
  tool(compiler, ...objects, '-Wl,--build-id=sha1', '-o', at(name));
  return at(name);
}

/** Packed all together .dwo files are not read: that is said, and the missing one helps all the same. */
async function namesPackage(
  t: ExecutionContext,
  at: (name: string) => string,
  split: string,
  dwo: string,
): Promise<void> {
  // binutils' own packer, which knows DWARF 4 alone.
  tool('dwp', '-e', split, '-o', `${split}.dwp`);
  t.true(tool('readelf', '-SW', `${split}.dwp`).includes('.debug_cu_index'));
  rmSync(dwo);
  const error = (await t.throwsAsync(read(split), { code: 'no-debug-information' }))!;
  t.true(error.message.includes(`copy it there or beside the file (${split}.dwp, in which`), error.message);
  await t.throwsAsync(read(`${split}.dwp`), { code: 'no-debug-information' });
  copyFileSync(at('aside'), dwo);
}

for (const compiler of ['gcc', 'clang-14']) {
  for (const version of [4, 5]) {
    for (const types of compiler === 'gcc' ? ['', '-fdebug-types-section'] : ['']) {
      test(`split DWARF ${version} of ${compiler} ${types}: .dwo files say what the whole says`, async (t) => {
        const at = scratch(t);
        const flags = [`-gdwarf-${version}`, ...(types ? [types] : [])];
        const whole = compile(at, 'whole', compiler, flags);
        const split = compile(at, 'split', compiler, [...flags, '-gsplit-dwarf']);
        const expected = await read(whole);
        t.deepEqual(Object.keys(expected.structs).sort(), ['only', 'pair', 'rq', 'task_struct']);
        t.deepEqual(await read(split), expected);
        // An object too, and structures by name: of the scheduler's unit, and of another.
        const ofCore = await read(at('split-kernel-sched-core.c.o'));
        t.deepEqual(ofCore.structs.rq, expected.structs.rq);
        t.deepEqual((await read(split, ['rq', 'only'])).structs.only, expected.structs.only);
        // Moved together they are found beside the file; what is missing is named, and the advice works.
        const dwo = readdirSync(at('.')).find(
          (name) => name.startsWith('split-other') && name.endsWith('.dwo'),
        )!;
        mkdirSync(at('moved'));
        renameSync(at(dwo), at('aside'));
        const error = (await t.throwsAsync(read(split), { code: 'no-debug-information' }))!;
        const [, place] = /and (\S+\.dwo) is not there: copy it there or beside/.exec(error.message)!;
        t.is(place, at(dwo));
        copyFileSync(at('aside'), place!);
        if (version === 4) await namesPackage(t, at, split, place!);
        t.deepEqual(await read(split), expected);
        for (const name of readdirSync(at('.'))) {
          if (name.endsWith('.dwo') || name === 'split') renameSync(at(name), at(`moved/${name}`));
        }
        t.deepEqual(await read(at('moved/split')), expected);
      });
    }
  }
}

for (const [version, flags, section] of [
  [4, [], '.gnu_debugaltlink'],
  [5, [], '.gnu_debugaltlink'],
  [5, ['--dwarf-5'], '.debug_sup'],
] as const) {
  test(`DWARF ${version} that dwz shares between files (${section}) is followed into the shared one`, async (t) => {
    const at = scratch(t);
    const first = compile(at, 'first', 'gcc', [`-gdwarf-${version}`]);
    const expected = await read(first);
    copyFileSync(first, at('second'));
    tool('dwz', ...flags, '-m', at('common.dwz'), first, at('second'));
    t.true(tool('readelf', '-SW', first).includes(section));
    t.true(tool('readelf', '--debug-dump=info', at('common.dwz')).includes('task_struct'));
    t.deepEqual(await read(first), expected);
    t.deepEqual((await read(first, ['rq', 'task_struct'])).structs.task_struct, expected.structs.task_struct);
    // Without it, or with another: named, and where to copy it works; so does a root by build-id.
    renameSync(at('common.dwz'), at('aside'));
    copyFileSync(at('second'), at('common.dwz'));
    const error = (await t.throwsAsync(read(first), {
      instanceOf: ExtractError,
      code: 'no-debug-information',
    }))!;
    const [, place, id] = /not at (\S+) or is .* build-id ([0-9a-f]{40})$/.exec(error.message)!;
    t.true(readFileSync(at('aside')).includes(Buffer.from(id!, 'hex')));
    const byId = at(`root/.build-id/${id!.slice(0, 2)}/${id!.slice(2)}.debug`);
    mkdirSync(dirname(byId), { recursive: true });
    copyFileSync(at('aside'), byId);
    t.deepEqual(await read(first, 'all', [at('root')]), expected);
    rmSync(place!);
    copyFileSync(at('aside'), place!);
    t.deepEqual(await read(first), expected);
  });
}
