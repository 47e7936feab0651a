import { z } from 'zod';
import { type KernelLayout, LAYOUT_FORMAT, type StructureMember } from '../extractor/contract.ts';
import { ExtractError } from '../extractor/error.ts';
import { misfit, type NamedLayout } from '../runtime/layout/module.ts';
import { isFolderName, SYMBOL_NAME } from './names.ts';

/** Far above any kernel structure; keeps offsets exact in a DataView and products of sizes safe. */
const MAX_BYTES = 2 ** 32;

/** Any text: `names.ts` makes it harmless. Rust's names are long. */
const name = z.string().max(1 << 16);
/** The spelling of a type contains names. */
const spelled = z.string().max(1 << 20);
const bytes = z.int().min(0).max(MAX_BYTES);
const hex = (digits: number) =>
  z.string().regex(new RegExp(`^[0-9a-f]{${digits}}$`), `is not ${digits} hex digits`);
const printable = z
  .string()
  .max(8192)
  .regex(/^[^\x00-\x1f\x7f]*$/, 'contains control characters');
const kind = z.enum(['int', 'bool', 'float', 'enum', 'pointer', 'struct', 'union', 'array', 'opaque']);

const member: z.ZodType<StructureMember> = z.object({
  name: name.nullable(),
  offset: bytes,
  size: bytes,
  type: spelled,
  kind,
  signed: z.boolean().optional(),
  bitOffset: z.int().min(0).max(127).optional(),
  bitSize: z.int().min(1).max(64).optional(),
  dims: z.array(bytes).min(1).max(16).optional(),
  element: z.object({ kind, size: bytes }).optional(),
  struct: name.optional(),
  target: name.optional(),
  enum: name.optional(),
  get members() {
    return z.array(member).max(65_536).optional();
  },
}) as z.ZodType<StructureMember>;

const structure = z.object({
  name,
  sourceName: name,
  kind: z.enum(['struct', 'union']),
  size: bytes,
  members: z.array(member).max(65_536),
});

/** A record that is checked entry by entry, because zod's own silently skips `__proto__`. */
function recordOf<T>(value: z.ZodType<T>) {
  return z.preprocess(
    (given) => (typeof given === 'object' && given !== null ? Object.entries(given) : given),
    z.array(z.tuple([name, value])).transform((entries) => Object.fromEntries(entries)),
  );
}

const document = z.object({
  format: z.literal(LAYOUT_FORMAT),
  kernel: z.object({
    release: z.string().refine(isFolderName, 'cannot name a folder').nullable(),
    banner: printable.nullable(),
    buildId: z
      .string()
      .regex(/^(?:[0-9a-f]{2}){4,32}$/, 'is no build-id')
      .nullable(),
    arch: z.literal('x86_64'),
  }),
  source: z.object({
    file: printable.min(1),
    sha256: hex(64).nullable(),
    engine: z.enum(['dwarf', 'btf', 'gdb']),
    dwarfVersion: z.int().min(2).max(5).nullable(),
  }),
  producer: z.object({ name: z.literal('domsched'), version: printable.min(1).max(64) }),
  config: z.record(z.string(), z.string()).optional(),
  structs: recordOf(structure),
  enums: recordOf(
    z.object({
      size: bytes,
      values: recordOf(z.union([z.int(), z.string().regex(/^-?[0-9]{1,20}$/, 'is no integer')])),
    }),
  ),
  constants: recordOf(z.int()),
  symbols: z.record(
    z.string().regex(SYMBOL_NAME, 'is no symbol name'),
    z.string().regex(/^0x[0-9a-f]{1,16}$/, 'is no 64-bit address'),
  ),
  percpu: z.array(z.string()),
});

/**
 * Checks that code may be generated from a layout: its shape, members inside their structures, and unique names after
 * anonymous members are flattened.
 *
 * @throws ExtractError `no-banner`; `layout-invalid`, with the path of the bad value in `details.path`
 */
export function validateLayout(value: unknown): NamedLayout {
  const parsed = guarded(() => document.safeParse(value));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw invalid(pathText(issue.path, value), issue.message);
  }
  const layout = parsed.data as KernelLayout;
  if (!isNamed(layout)) {
    const { file } = layout.source;
    throw new ExtractError(
      'no-banner',
      `${file} does not say which kernel it is of: it has no banner, by which a guest's kernel is recognized; give ` +
        'the vmlinux or vmlinuz of its build, or write what it has with --json',
      { file },
    );
  }
  const wrong = guarded(() => misfit(layout));
  if (wrong) throw invalid(wrong.path, wrong.problem);
  return layout;
}

function isNamed(layout: KernelLayout): layout is NamedLayout {
  return layout.kernel.release !== null && layout.kernel.banner !== null;
}

/** The schema does not bound nesting, so a document that exhausts the stack is refused here. */
function guarded<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof RangeError) throw tooDeep();
    throw error;
  }
}

function tooDeep(): ExtractError {
  return invalid('structs', 'nests too deep');
}

/**
 * Formats the path to a value. In a record, zod's path has the entry's index, then 0 for its key or 1 for its value.
 */
function pathText(path: readonly PropertyKey[], value: unknown): string {
  const words: string[] = [];
  let at = value;
  for (let index = 0; index < path.length; index++) {
    const isEntry = typeof path[index] === 'number' && !Array.isArray(at);
    const key = isEntry ? Object.keys(at ?? {})[path[index] as number]! : path[index]!;
    if (isEntry) index++;
    words.push(String(key));
    at = (at as Record<PropertyKey, unknown> | null | undefined)?.[key];
  }
  return words.join('.') || 'layout';
}

function invalid(path: string, problem: string): ExtractError {
  const shown = path.replace(/[^\x20-\x7e]/g, '?').slice(0, 256);
  return new ExtractError(
    'layout-invalid',
    `the layout cannot be turned into code: ${shown} ${problem}; it can be had as JSON (--json FILE)`,
    { path: shown, problem },
  );
}
