import test from 'ava';
import fc from 'fast-check';
import { canonicalBaseName, resolve, sizeOf, spell, TypeGraphError } from '../../extractor/ctype.ts';
import type { TypeNode } from '../../extractor/graph.ts';
import { askGdb, compile } from './fixture.ts';

const int: TypeNode = { kind: 'base', name: 'int', size: 4, encoding: 'signed' };
const char: TypeNode = { kind: 'base', name: 'char', size: 1, encoding: 'char' };
const ref = (node: TypeNode) => () => node;
const pointer = (to: TypeNode): TypeNode => ({ kind: 'pointer', size: 8, to: ref(to) });

test('types are spelled as gdb spells them: random declarations', (t) => {
  // Each random type is turned into C through a typedef for each level, which gdb and we then see without names.
  const type: fc.Arbitrary<TypeNode> = fc.letrec<{ type: TypeNode }>((tie) => ({
    type: fc.oneof(
      { maxDepth: 5, depthSize: 'large' },
      fc.constantFrom<TypeNode>(int, char),
      fc.constant<TypeNode>({ kind: 'forward', tag: 'struct', name: 'fwd' }),
      tie('type').map((to) => pointer(to)),
      fc
        .tuple(tie('type'), fc.constantFrom<'const' | 'volatile'>('const', 'volatile'))
        .map(([of, kind]): TypeNode => ({ kind, of: ref(of) })),
      fc
        .tuple(tie('type'), fc.integer({ min: 1, max: 9 }))
        .filter(([of]) => complete(of))
        .map(([of, dim]): TypeNode => ({ kind: 'array', of: ref(of), dims: [dim] })),
      fc
        .tuple(tie('type'), fc.array(tie('type'), { maxLength: 2 }), fc.boolean())
        .filter(([returns, parameters]) => returnable(returns) && parameters.every(passable))
        .map(
          ([returns, parameters, variadic]): TypeNode => ({
            kind: 'function',
            returns: ref(returns),
            parameters: parameters.map(ref),
            variadic: variadic && parameters.length > 0,
          }),
        ),
    ),
  })).type;
  const samples = fc.sample(type.map(pointer), { numRuns: 400, seed: 20 });
  const declarations: string[] = ['struct fwd;'];
  const cNames = samples.map((sample) => declare(sample, declarations));
  // __typeof__ strips the typedef's name, so that gdb has to spell the type.
  const source = `${declarations.join('\n')}\n${cNames.map((name, index) => `${name} v${index};`).join('\n')}`;
  const file = compile(t, source);
  const answers = askGdb(
    file,
    samples.map((_, index) => `whatis v${index}`),
  );
  t.is(answers.length, samples.length);
  for (const [index, sample] of samples.entries()) t.is(answers[index], `type = ${spell(ref(sample))}`);
});

/** Array elements need a size. */
function complete(node: TypeNode): boolean {
  const target = resolve(ref(node));
  return target.kind !== 'function' && target.kind !== 'forward';
}

/** Functions return neither arrays nor functions, and a qualifier on what they return is dropped by C. */
function returnable(node: TypeNode): boolean {
  return complete(node) && node.kind !== 'array' && node.kind !== 'const' && node.kind !== 'volatile';
}

/** Parameters of array and function type are adjusted by C, qualified ones lose the qualifier in gdb's eyes. */
function passable(node: TypeNode): boolean {
  return returnable(node);
}

/** Writes a C expression that denotes the type without naming a typedef: `__typeof__` nested in declarators. */
function declare(node: TypeNode, lines: string[]): string {
  switch (node.kind) {
    case 'pointer':
      return `__typeof__(${declare(node.to(), lines)} *)`;
    case 'const':
    case 'volatile':
      return `__typeof__(${node.kind} ${declare(node.of(), lines)})`;
    case 'array':
      return `__typeof__(${declare(node.of(), lines)} [${node.dims.join('][')}])`;
    case 'function': {
      const parameters = node.parameters.map((parameter) => declare(parameter(), lines));
      if (node.variadic) parameters.push('...');
      return `__typeof__(${declare(node.returns(), lines)} (${parameters.join(', ') || 'void'}))`;
    }
    case 'forward':
      return `struct ${node.name}`;
    default:
      return (node as { name: string }).name;
  }
}

test('base types are named as gdb names them', (t) => {
  const names = [
    ...['char', 'signed char', 'unsigned char', 'short', 'unsigned short', 'int', 'unsigned', 'long'],
    ...[
      'unsigned long',
      'long long',
      'unsigned long long',
      '__int128',
      'unsigned __int128',
      '_Bool',
      'float',
    ],
    ...['double', 'long double', '_Complex double'],
  ];
  const file = compile(t, names.map((name, index) => `${name} v${index};`).join('\n'));
  const answers = askGdb(
    file,
    names.map((_, index) => `whatis v${index}`),
  );
  // gcc's DW_AT_name of each, from DWARF producers' practice: what an engine hands over.
  const given = [
    ...['char', 'signed char', 'unsigned char', 'short int', 'short unsigned int', 'int', 'unsigned int'],
    ...['long int', 'long unsigned int', 'long long int', 'long long unsigned int', '__int128'],
    ...['__int128 unsigned', '_Bool', 'float', 'double', 'long double', 'complex double'],
  ];
  t.deepEqual(
    given.map((name) => `type = ${canonicalBaseName(name)}`),
    answers,
  );
});

test('endless graphs are refused, not walked', (t) => {
  const loop: TypeNode = { kind: 'typedef', name: 'loop', of: () => loop };
  const constLoop: TypeNode = { kind: 'const', of: () => constLoop };
  const pointerLoop: TypeNode = { kind: 'pointer', size: 8, to: () => pointerLoop };
  const arrayLoop: TypeNode = { kind: 'array', of: () => arrayLoop, dims: [2] };
  for (const node of [loop, constLoop, arrayLoop]) {
    t.throws(() => resolve(ref(node)).kind === 'array' && sizeOf(ref(node)), { instanceOf: TypeGraphError });
  }
  for (const node of [constLoop, pointerLoop, arrayLoop]) {
    t.throws(() => spell(ref(node)), { instanceOf: TypeGraphError });
  }
});

test('a type whose spelling doubles at every level is refused', (t) => {
  let node: TypeNode = int;
  for (let level = 0; level < 40; level++) {
    const inner = node;
    node = pointer({
      kind: 'function',
      returns: ref(int),
      parameters: [ref(inner), ref(inner)],
      variadic: false,
    });
  }
  t.throws(() => spell(ref(node)), { instanceOf: TypeGraphError, message: /too long|too deeply/ });
});

test('an array larger than any memory is refused', (t) => {
  const huge: TypeNode = { kind: 'array', of: ref(int), dims: [2 ** 32, 2 ** 32] };
  t.throws(() => sizeOf(ref(huge)), { instanceOf: TypeGraphError, message: /larger than any memory/ });
});
