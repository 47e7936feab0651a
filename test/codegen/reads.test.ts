import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import test from 'ava';
import { generate } from '../../codegen/index.ts';
import { elementsOf } from '../../runtime/layout/element.ts';
import { reader } from '../../runtime/layout/reader.ts';
import type { AnyLayout, MemberLayout, Scalar, StructLayout } from '../../runtime/layout/types.ts';
import { LayoutView } from '../../runtime/layout/view.ts';
import { compileC } from './c-program.ts';
import { temporaryFolder } from './folder.ts';

const IMAGES = 200;

test('members of generated modules read what the C compiler reads, from TypeScript and from the compiled form', async (t) => {
  const folder = await temporaryFolder(t);
  const program = await compileC(folder);
  const [outDir, compiledDir] = [join(folder, 'ts'), join(folder, 'js')];
  const written = await generate(program.layout, { outDir, compiledDir });
  const bytes = randomBytes(program.size * IMAGES);
  // Any other byte in a _Bool is undefined behaviour in C.
  for (const { kind, offset, bitSize } of program.layout.structs.all!.members) {
    if (kind !== 'bool' || bitSize !== undefined) continue;
    for (let i = 0; i < IMAGES; i++) bytes[i * program.size + offset]! &= 1;
  }
  const expected = await program.values(bytes);
  t.is(expected.length, IMAGES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const path of [
    join(outDir, written.folder, 'index.ts'),
    join(compiledDir, written.folder, 'index.js'),
  ]) {
    const { layout } = (await import(pathToFileURL(path).href)) as { layout: AnyLayout };
    const members = Object.entries(layout.all as StructLayout).filter(([name]) => !name.startsWith('$'));
    const any = new LayoutView(layout).requireStruct('all');
    for (const [i, values] of expected.entries()) {
      const at = i * program.size;
      const read = new Map<string, Scalar>();
      const viewed = new Map<string, Scalar>();
      for (const [name, member] of members as [string, MemberLayout][]) {
        if (member.kind === 'array') {
          const element = reader(member) as (view: DataView, index: number, at?: number) => Scalar;
          for (let j = 0; j < elementsOf(member)!; j++) {
            read.set(`${name}[${j}]`, element(view, j, at));
            viewed.set(`${name}[${j}]`, any.field(`${name}[${j}]`).read(view, at));
          }
        } else {
          read.set(name, (reader(member) as (view: DataView, at?: number) => Scalar)(view, at));
          viewed.set(name, any.field(name).read(view, at));
        }
      }
      const same = (found: Map<string, Scalar>) =>
        [...values]
          .filter(([name, text]) => !equal(found.get(name), text))
          .map(([name, text]) => [name, text, found.get(name)]);
      t.deepEqual(same(read), []);
      t.deepEqual(same(viewed), []);
      t.is(read.size, values.size);
    }
  }
});

/** Whether a value is what C printed: integers in decimal, floats as `%a`. */
function equal(value: Scalar | undefined, text: string): boolean {
  if (typeof value === 'boolean') return value === (text === '1');
  if (typeof value === 'bigint') return value === BigInt(text);
  if (/nan/.test(text)) return Number.isNaN(value);
  if (/inf/.test(text)) return value === (text.startsWith('-') ? -Infinity : Infinity);
  const [, sign, mantissa, fraction = '', exponent] =
    /^(-?)0x([01])\.?([0-9a-f]*)p([+-]\d+)$/.exec(text) ?? [];
  if (mantissa === undefined) return value === Number(text);
  const magnitude = Number.parseInt(`${mantissa}${fraction}` || '0', 16) * 2 ** -(4 * fraction.length);
  return value === (sign === '-' ? -1 : 1) * magnitude * 2 ** Number(exponent);
}
