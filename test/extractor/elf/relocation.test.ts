import { readFileSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { dwarfEngine } from '../../../extractor/dwarf/engine.ts';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import type { EngineResult } from '../../../extractor/engine.ts';
import { FORMS } from '../dwarf/compilers.ts';
import { askGdb } from '../fixture.ts';
import { scratch } from './scratch.ts';
import { tool } from './tools.ts';

const STRUCTS = `
enum colour { RED, GREEN = 7 };
struct pair { char first; long second; };
struct rq { unsigned a:3, b:7; union { int u; struct { short s1, s2; }; }; struct pair in[3]; enum colour colour;
  struct rq *self; };
static __thread int of_thread;
`;
const ONE = `${STRUCTS}struct rq one;
const char linux_banner[] = "Linux version 6.1.0-object (me@host) (gcc) #1 SMP\\n";
int first(void) { return of_thread + one.a; }
int main(void) { return first(); }
`;
const TWO = `${STRUCTS}struct task_struct { struct rq rq; int pid; char comm[16]; } two;
int second(void) { return of_thread + two.pid; }
`;

async function everything(path: string): Promise<EngineResult> {
  await using file = await openKernelFile(path, { debugRoots: [] });
  return await dwarfEngine.extract(file, { structs: 'all', enums: [], required: [] });
}

/** Two objects as a compiler leaves them, the two joined as a module is, and what the linker makes of them. */
function build(t: ExecutionContext, compiler: string, flags: readonly string[]) {
  const at = scratch(t);
  writeFileSync(at('one.c'), ONE);
  writeFileSync(at('two.c'), TWO);
  for (const name of ['one', 'two'])
    tool(compiler, ...flags, '-w', '-c', at(`${name}.c`), '-o', at(`${name}.o`));
  tool('ld', '-r', '-o', at('module.ko'), at('one.o'), at('two.o'));
  tool('ld', '-e', 'main', '-o', at('linked'), at('one.o'), at('two.o'));
  return at;
}

for (const { name, compiler, flags, version } of FORMS) {
  test(`${name}: objects and modules say what the linked program says`, async (t) => {
    const at = build(t, compiler, flags);
    const linked = await everything(at('linked'));
    t.is(linked.dwarfVersion, version);
    t.deepEqual(Object.keys(linked.structs).sort(), ['pair', 'rq', 'task_struct']);
    t.deepEqual(await everything(at('module.ko')), linked);
    const { task_struct: _, ...ofOne } = linked.structs;
    t.deepEqual((await everything(at('one.o'))).structs, ofOne);
    // gdb does not find type units of DWARF 5 in a file that is not linked.
    const questions = ['rq', 'task_struct'].map((struct) => `output/d sizeof(struct ${struct})`);
    const sizes = [linked.structs.rq!.size, linked.structs.task_struct!.size];
    t.deepEqual(
      askGdb(at(name.includes('5 type units') ? 'linked' : 'module.ko'), questions).map(Number),
      sizes,
    );
  });
}

for (const how of ['zlib', 'zlib-gnu']) {
  test(`sections compressed with ${how} are relocated too`, async (t) => {
    const at = build(t, 'gcc', ['-g']);
    const compressed = at('compressed.ko');
    tool('objcopy', `--compress-debug-sections=${how}`, at('module.ko'), compressed);
    t.deepEqual(await everything(compressed), await everything(at('linked')));
  });
}

test('the relocations that an executable keeps are not applied again', async (t) => {
  const at = build(t, 'gcc', ['-g']);
  tool('ld', '-e', 'main', '--emit-relocs', '-o', at('kept'), at('one.o'), at('two.o'));
  t.true(tool('readelf', '-SW', at('kept')).includes('.rela.debug_info'));
  t.deepEqual(await everything(at('kept')), await everything(at('linked')));
});

test('a relocation that debug information does not have is refused, and one that leads outside', async (t) => {
  const at = build(t, 'gcc', ['-g']);
  const whole = readFileSync(at('one.o'));
  const [, offset] = /\.rela\.debug_info +RELA +[0-9a-f]+ ([0-9a-f]+)/.exec(
    tool('readelf', '-SW', at('one.o')),
  )!;
  const first = Number.parseInt(offset!, 16);
  const changed = async (place: number, value: number) => {
    const bytes = Buffer.from(whole);
    bytes.writeUInt32LE(value, first + place);
    writeFileSync(at('changed.o'), bytes);
    return (await t.throwsAsync(everything(at('changed.o')), { name: 'ExtractError' })) as Error & {
      code: string;
    };
  };
  // R_X86_64_GOTPCREL; a place, a symbol and an addend beyond all.
  const got = await changed(8, 9);
  t.is(got.code, 'unsupported-relocation');
  t.true(got.message.includes('type 9'));
  for (const [place, value] of [
    [0, 0x7fff_ffff],
    [12, 0x7fff_ffff],
    [20, 0x7fff_ffff],
  ] as const) {
    t.is((await changed(place, value)).code, 'corrupt-elf', `${place}`);
  }
});
