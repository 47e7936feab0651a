import { join, relative } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { ts } from 'ts-morph';
import { kernelText } from '../../codegen/modules.ts';
import { registryText, storedKernel } from '../../codegen/store.ts';
import { validateLayout } from '../../codegen/validate.ts';
import type { KernelLayout } from '../../extractor/contract.ts';
import { ExtractError } from '../../extractor/error.ts';
import { moduleOf, type NamedLayout } from '../../runtime/layout/module.ts';
import { sampleLayout } from './sample.ts';

/** What an attacker would write where a name or text is expected. */
const HOSTILE = [
  '../../etc/passwd',
  '..',
  '.',
  '/tmp/x',
  'a/b',
  "x'; process.exit(1); '",
  '*/ process.exit(1); /*',
  'x\nprocess.exit(1);',
  'x\u2028process.exit(1);',
  'x\r\n// y',
  `\`$\{process.exit(1)}\``,
  `$\{process.exit(1)}`,
  '\\',
  "\\'",
  '__proto__',
  'constructor',
  'prototype',
  'registry.ts',
  'node_modules',
  '1digit',
  '$kernel',
  'a.b',
  'class',
  'default',
  'import',
  '\0',
  '\ud800',
  'é',
  ' ',
  '',
  'x'.repeat(10_000),
];

/** Every place of a layout that holds text a file decides on. */
const PLACES: Record<string, (layout: KernelLayout, text: string) => void> = {
  release: (layout, text) => {
    layout.kernel.release = text;
  },
  banner: (layout, text) => {
    layout.kernel.banner = text;
  },
  buildId: (layout, text) => {
    layout.kernel.buildId = text;
  },
  file: (layout, text) => {
    layout.source.file = text;
  },
  sha256: (layout, text) => {
    layout.source.sha256 = text;
  },
  version: (layout, text) => {
    layout.producer.version = text;
  },
  structKey: (layout, text) => rename(layout.structs, 'cfs_rq', text, { name: text }),
  structName: (layout, text) => {
    layout.structs.cfs_rq!.name = text;
  },
  sourceName: (layout, text) => {
    layout.structs.cfs_rq!.sourceName = text;
  },
  member: (layout, text) => {
    layout.structs.cfs_rq!.members[0]!.name = text;
  },
  type: (layout, text) => {
    layout.structs.cfs_rq!.members[0]!.type = text;
  },
  struct: (layout, text) => {
    layout.structs.cfs_rq!.members[0]!.struct = text;
  },
  target: (layout, text) => {
    layout.structs.cfs_rq!.members[0]!.target = text;
  },
  enum: (layout, text) => {
    layout.structs.cfs_rq!.members[0]!.enum = text;
  },
  anonymousType: (layout, text) => {
    layout.structs.rq!.members[5]!.type = text;
  },
  enumTag: (layout, text) => rename(layout.enums, 'pid_type', text, {}),
  enumerator: (layout, text) => rename(layout.enums.pid_type!.values, 'PIDTYPE_PID', text),
  enumValue: (layout, text) => {
    layout.enums.pid_type!.values.PIDTYPE_PID = text;
  },
  constant: (layout, text) => rename(layout.constants, 'NEGATIVE', text),
  symbol: (layout, text) => rename(layout.symbols, 'init_task', text),
  address: (layout, text) => {
    layout.symbols.init_task = text;
  },
  percpu: (layout, text) => void layout.percpu.push(text),
};

const ALWAYS_REFUSED = new Set(['buildId', 'sha256', 'structName', 'enumValue', 'address', 'percpu']);

for (const [place, put] of Object.entries(PLACES)) {
  test(`text in ${place} cannot become code, a comment's end or a path`, (t) => {
    let accepted = 0;
    const attempt = (text: string): void => {
      const layout = sampleLayout();
      put(layout, text);
      // As it would come from a file: own keys, whatever they are called.
      accepted += harmless(JSON.parse(JSON.stringify(layout))) ? 1 : 0;
    };
    for (const text of HOSTILE) attempt(text);
    fc.assert(fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom(...HOSTILE)), attempt), {
      numRuns: 30,
    });
    // The list holds texts that are fine in their place, `class` among them; a check that refuses all proves nothing.
    t.is(accepted > 0, !ALWAYS_REFUSED.has(place));
  });
}

test('reserved words and odd names are usable members and structures', (t) => {
  const layout = sampleLayout();
  for (const name of [
    'class',
    'default',
    'private',
    'constructor',
    'index',
    'symbols',
    'kernel',
    'layout',
    'arguments',
    'DataView',
  ]) {
    layout.structs[name] = { ...layout.structs.cfs_rq!, name, sourceName: name };
  }
  t.true(harmless(layout));
});

test('numbers that are none, out of range or outside their structure are refused', (t) => {
  const changes: ((layout: KernelLayout) => void)[] = [
    (layout) => {
      layout.structs.rq!.members[0]!.offset = -1;
    },
    (layout) => {
      layout.structs.rq!.members[0]!.offset = 1.5;
    },
    (layout) => {
      layout.structs.rq!.members[0]!.offset = Number.NaN;
    },
    (layout) => {
      layout.structs.rq!.members[0]!.offset = 127;
    },
    (layout) => {
      layout.structs.rq!.members[0]!.size = 2 ** 40;
    },
    (layout) => {
      layout.structs.rq!.members[0]!.offset = '0; process.exit(1)' as unknown as number;
    },
    (layout) => {
      layout.structs.rq!.size = 'x' as unknown as number;
    },
    (layout) => {
      layout.structs.rq!.members[1]!.name = 'nr_running';
    },
    (layout) => {
      layout.structs.rq!.members[5]!.members![0]!.name = 'nr_running';
    },
    (layout) => {
      layout.structs.rq!.kind = 'class' as 'struct';
    },
    (layout) => {
      layout.constants.NEGATIVE = 2 ** 60;
    },
    (layout) => void layout.percpu.push('no_such_symbol'),
    (layout) => {
      layout.format = 'domsched-layout/2' as KernelLayout['format'];
    },
  ];
  for (const change of changes) {
    const layout = sampleLayout();
    change(layout);
    const error = t.throws(() => validateLayout(layout), { instanceOf: ExtractError }, String(change));
    t.is(error?.code, 'layout-invalid');
  }
});

test('nesting without end is refused', (t) => {
  for (const depth of [200, 20_000]) {
    const layout = sampleLayout();
    let member = layout.structs.cfs_rq!.members[0]!;
    for (let i = 0; i < depth; i++) {
      member = { name: null, offset: 0, size: 4, type: 'struct {...}', kind: 'struct', members: [member] };
    }
    layout.structs.cfs_rq!.members = [member];
    const error = t.throws(() => validateLayout(layout), { instanceOf: ExtractError });
    t.is(error?.code, 'layout-invalid');
  }
});

/** Whether a layout was accepted; throws where what was generated from it is more than data. */
function harmless(value: unknown): boolean {
  let layout: NamedLayout;
  try {
    layout = validateLayout(value);
  } catch (error) {
    if (error instanceof ExtractError && error.code === 'layout-invalid') return false;
    throw error;
  }
  const { index, structures } = kernelText(moduleOf(layout));
  const folder = join('/store', layout.kernel.release);
  if (!/^[^./][^/]*$/.test(relative('/store', folder))) throw new Error(`leaves the store: ${folder}`);
  const stored = storedKernel(layout.kernel.release, index);
  if (!stored) throw new Error(`the store does not know its own text:\n${index.slice(0, 500)}`);
  const files = new Map([...structures.values()].map(({ file, text }) => [file, text]));
  if (files.size !== structures.size) throw new Error('two structures share a file');
  if (stored.structures.toSorted().join() !== [...files.keys()].sort().join())
    throw new Error('a structure is lost');
  for (const [name, text] of [
    ...files,
    ['index.ts', index],
    ['registry.ts', registryText([stored])],
  ] as const) {
    if (!/^[A-Za-z0-9_-]+(?:\.[0-9a-f]{16})?\.ts$/.test(name)) throw new Error(`bad file name ${name}`);
    assertOnlyData(name, text);
  }
  return true;
}

/** Throws unless a module is constants and imports of structures; the registry brings kernels in besides. */
function assertOnlyData(name: string, text: string): void {
  const source = ts.createSourceFile(name, text, ts.ScriptTarget.Latest);
  const problems = (source as unknown as { parseDiagnostics: readonly unknown[] }).parseDiagnostics;
  if (problems.length > 0) throw new Error(`${name} does not parse:\n${text.slice(0, 500)}`);
  for (const statement of source.statements) {
    if (!ts.isVariableStatement(statement) && !ts.isImportDeclaration(statement)) {
      throw new Error(`${name} has a statement of its own: ${statement.getText(source).slice(0, 200)}`);
    }
  }
  const visit = (node: ts.Node): void => {
    if (
      ts.isImportDeclaration(node) &&
      !/^'\.\.\/structs\/[A-Za-z0-9_-]+\.[0-9a-f]{16}\.ts'$/.test(node.moduleSpecifier.getText(source))
    ) {
      throw new Error(`${name} imports ${node.moduleSpecifier.getText(source)}`);
    }
    if (ts.isCallExpression(node)) {
      const callee = node.expression.getText(source);
      const isLoad =
        callee === 'import' && /^'\.\/[^/']+\/index\.ts'$/.test(node.arguments[0]!.getText(source));
      if (name !== 'registry.ts' || !isLoad) throw new Error(`${name} calls ${callee}`);
    }
    if (ts.isFunctionLike(node) && name !== 'registry.ts') throw new Error(`${name} has a function`);
    if (ts.isTemplateExpression(node) || ts.isTaggedTemplateExpression(node))
      throw new Error(`${name} has a template`);
    if (ts.isPropertyAssignment(node) && node.name.getText(source) === '__proto__') {
      throw new Error(`${name} sets a prototype`);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  for (const line of text.match(/^\/\/.*$/gm) ?? []) {
    if (/[^\x20-\x7e]/.test(line)) throw new Error(`${name}: comment with ${JSON.stringify(line)}`);
  }
}

function rename<T>(
  record: Record<string, T>,
  from: string,
  to: string,
  change: Partial<T> | null = null,
): void {
  const value = record[from]!;
  delete record[from];
  // Assignment to `__proto__` would make no own property.
  Object.defineProperty(record, to, {
    value: change === null ? value : { ...value, ...change },
    enumerable: true,
    configurable: true,
    writable: true,
  });
}
