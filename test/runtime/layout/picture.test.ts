import test from 'ava';
import fc from 'fast-check';
import { listing } from '../../../runtime/layout/picture/listing.ts';
import { CACHE_LINE, outline } from '../../../runtime/layout/picture/outline.ts';
import { rowsOf } from '../../../runtime/layout/picture/rows.ts';
import { stripPicture } from '../../../runtime/layout/picture/strip.ts';
import { svgPicture } from '../../../runtime/layout/picture/svg.ts';
import type { AnyLayout, KernelFacts, MemberLayout } from '../../../runtime/layout/types.ts';
import { LayoutView, type StructView } from '../../../runtime/layout/view.ts';
import { generated } from './sample.ts';

const KERNEL: KernelFacts = {
  release: '6.1.0-test',
  banner: null,
  buildId: null,
  arch: 'x86_64',
  schedulers: [],
  source: { file: 'vmlinux', sha256: '0'.repeat(64), engine: 'btf', dwarfVersion: null },
  producer: { name: 'domsched', version: '0.0.0' },
};

function structOf(size: number, members: Record<string, MemberLayout>): StructView {
  const struct = { $name: 's', $sourceName: 's', $kind: 'struct', $size: size, ...members };
  return new LayoutView({
    $kernel: KERNEL,
    $symbols: {},
    $percpu: [],
    $constants: {},
    $enums: {},
    s: struct,
  } as AnyLayout).requireStruct('s');
}

const member = (offset: number, size: number): MemberLayout => ({ offset, size, type: 'char', kind: 'int' });

/** Members at random, overlapping or not, inside a structure. */
const structs = fc
  .tuple(
    fc.integer({ min: 1, max: 700 }),
    fc.array(
      fc.tuple(fc.nat(700), fc.nat(300), fc.option(fc.tuple(fc.nat(7), fc.integer({ min: 1, max: 20 })))),
      { maxLength: 30 },
    ),
  )
  .map(([size, list]) => {
    const members: Record<string, MemberLayout> = {};
    for (const [i, [offset, bytes, bits]] of list.entries()) {
      if (bits && offset * 8 + bits[0] + bits[1] <= size * 8) {
        members[`m${i}`] = { ...member(offset, 4), bitOffset: bits[0], bitSize: bits[1] };
      } else if (offset + bytes <= size) members[`m${i}`] = member(offset, bytes);
    }
    return { struct: structOf(size, members), members };
  });

test('pieces cover a structure without gap or overlap, and holes are the bytes of no member', (t) => {
  fc.assert(
    fc.property(structs, ({ struct, members }) => {
      const used = new Uint8Array(struct.size);
      for (const { offset, size, bitOffset = 0, bitSize } of Object.values(members)) {
        if (bitSize === undefined) used.fill(1, offset, offset + size);
        else for (let bit = 0; bit < bitSize; bit++) used[offset + ((bitOffset + bit) >> 3)] = 1;
      }
      const found = outline(struct);
      let at = 0;
      for (const piece of found.pieces) {
        t.is(piece.offset, at);
        t.true(piece.size > 0);
        at += piece.size;
        const isHole = piece.kind === 'hole';
        t.true(used.subarray(piece.offset, at).every((byte) => byte === (isHole ? 0 : 1)));
      }
      t.is(at, struct.size);
      t.is(found.holeBytes + found.paddingBytes, used.filter((byte) => byte === 0).length);
    }),
  );
});

test('rows are whole cache lines that show every byte once', (t) => {
  fc.assert(
    fc.property(structs, ({ struct }) => {
      let at = 0;
      for (const row of rowsOf(outline(struct))) {
        t.is(row.offset, at);
        const shown = row.segments.reduce((sum, segment) => sum + segment.size, 0);
        t.is(shown, row.lines > 1 ? CACHE_LINE : Math.min(CACHE_LINE, struct.size - at));
        if (row.lines > 1) t.is(row.segments.length, 1);
        at += row.lines * CACHE_LINE;
      }
      t.true(at >= struct.size && at - struct.size < CACHE_LINE);
    }),
  );
});

test('a structure is listed as C, with its holes and nested anonymous members', async (t) => {
  const layout = await generated(t);
  const text = listing(layout.requireStruct('rq'), layout.kernel);
  const lines = text.split('\n').map((line) => line.trim().replace(/\s+/g, ' '));
  for (const line of [
    'struct runqueue {',
    'struct task_struct *curr; /* 8 8 */',
    '/* hole of 1 byte */',
    'union {',
    'unsigned int high; /* 44 4 */',
    '} named; /* 48 8 */',
    '/* --- cache line 1, byte 64 was 40 bytes ago --- */',
    'int load[3]; /* 104 12 */',
    'unsigned int flag:1; /* 116: 0 1 bits */',
    'unsigned char tail[]; /* 120 0 */',
  ]) {
    t.true(lines.includes(line), `${line}\n${text}`);
  }
  t.is(text.split('{').length, text.split('}').length);
});

test('the strip has a column for each byte', async (t) => {
  const layout = await generated(t);
  const rows = stripPicture(layout.requireStruct('rq'), { scale: 1, colour: false }).split('\n').slice(1, 3);
  for (const row of rows) t.is(row.length, 7 + 64, row);
  t.is(rows[0]!.slice(7 + 6, 7 + 8), '│░');
});

test('hostile text in a picture stays text', (t) => {
  const evil = `</text><script>alert(1)</script>&"'\x1b[2J\0\ud800`;
  const struct = structOf(640, {
    a: { ...member(0, 8), type: evil },
    b: { ...member(8, 600), type: evil },
    c: { ...member(616, 4), type: evil, bitOffset: 0, bitSize: 3 },
  });
  const svg = svgPicture(struct, { ...KERNEL, release: evil, source: { ...KERNEL.source, file: evil } });
  assertWellFormed(t, svg);
  t.false(/<script|[\x00-\x08\x0b-\x1f\ud800]/.test(svg));
  fc.assert(
    fc.property(structs, ({ struct: any }) => {
      assertWellFormed(t, svgPicture(any, KERNEL));
    }),
    { numRuns: 30 },
  );
});

/** Tags nest, attributes are quoted, and `<` and `&` occur in markup only. */
function assertWellFormed(t: import('ava').ExecutionContext, svg: string): void {
  const open: string[] = [];
  const rest = svg.replace(
    /<(\/?)([a-zA-Z]+)((?: [a-zA-Z:-]+="[^"<>&]*")*)(\/?)>/g,
    (_, end, name: string, _attributes, single) => {
      if (end) t.is(open.pop(), name);
      else if (!single) open.push(name);
      return '';
    },
  );
  t.deepEqual(open, []);
  t.false(/[<>]|&(?!(?:amp|lt|gt|quot);)/.test(rest));
  t.false(/NaN|undefined|Infinity|-\d+(?:\.\d+)?" height/.test(svg));
}
