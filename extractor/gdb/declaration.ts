/** A C declaration that gdb printed, taken apart. */
export interface CDeclaration {
  name: string | null;
  /** The type as `whatis` spells it. */
  type: string;
  /** The innermost type: `unsigned int`, `struct rq`, `enum {...}`, a typedef's name. */
  base: string;
  /** Element counts, outermost first; 0 for an unknown one. */
  dims: number[];
  /** `*` between the base and the name, including those of array elements; several levels are `pointers`. */
  shape: 'plain' | 'pointer' | 'pointers' | 'function';
  bitSize: number | null;
  /** Whether an enumeration printed in place has a negative value. */
  negative: boolean;
}

const QUALIFIERS = /\b(?:const|volatile|restrict|_Atomic)\b/g;
const IDENTIFIER = '[A-Za-z_$][\\w$]*';
const QUALIFIER = '(?:const|volatile|restrict|_Atomic)\\b';
/** A declarator in parentheses: `void (*fn[2])(int)`. */
const NESTED = new RegExp(
  `^([^(]*\\((?:[*(\\s]|${QUALIFIER})*)(?!${QUALIFIER})(${IDENTIFIER})?((?:\\[\\d*\\])*)(.*)$`,
);
const SIMPLE = new RegExp(`^(.*[\\s*}])??(?!${QUALIFIER})(${IDENTIFIER})?((?:\\[\\d*\\])*)$`);

/**
 * Takes apart `unsigned long bits[3]`, `int (*fn)(struct rq *)`, `unsigned int on : 1`, without the semicolon.
 *
 * @param named whether the declaration has a name; a bare type has none
 * @returns null if the text is no declaration
 */
export function parseDeclaration(text: string, named: boolean): CDeclaration | null {
  const field = /^(.*\S) : (\d+)$/.exec(text);
  const bitSize = field ? Number(field[2]) : null;
  // An enumeration without a tag is printed with its enumerators.
  const whole = field ? field[1]! : text;
  const enumeration = /\benum \{[^}]*\}/.exec(whole)?.[0] ?? '';
  const shortened = enumeration ? whole.replace(enumeration, 'enum {...}') : whole;
  const nested = /\(\s*\*/.test(shortened);
  let parts: RegExpExecArray | null;
  if (nested) parts = NESTED.exec(shortened);
  else if (named) parts = SIMPLE.exec(shortened);
  else parts = /^(.*?)()\s*((?:\[\d*\])*)$/.exec(shortened);
  if (!parts || (named && !parts[2])) return null;
  const [, prefix = '', name = '', dimensions = '', rest = ''] = parts;
  const beforeName = prefix.trimEnd();
  // gdb prints no space between a pointer's qualifiers and brackets.
  const joint =
    !nested && dimensions && !/\*(?:\s*(?:const|volatile|restrict|_Atomic))*$/.test(beforeName) ? ' ' : '';
  const type = nested ? `${beforeName}${dimensions}${rest}` : `${beforeName}${joint}${dimensions}`;
  const base = (nested ? prefix.slice(0, prefix.indexOf('(')) : prefix)
    .replace(QUALIFIERS, '')
    .replaceAll('*', '');
  const stars = [...(nested ? prefix.slice(prefix.indexOf('(')) : prefix)].filter(
    (letter) => letter === '*',
  ).length;
  let shape: CDeclaration['shape'] = 'plain';
  if (nested) shape = stars > 1 ? 'pointers' : 'function';
  else if (stars > 0) shape = stars > 1 ? 'pointers' : 'pointer';
  return {
    name: named ? name : null,
    type: type.trim(),
    base: base.replace(/\s+/g, ' ').trim(),
    dims: [...dimensions.matchAll(/\[(\d*)\]/g)].map(([, count]) => Number(count)),
    shape,
    bitSize,
    negative: enumeration.includes('= -'),
  };
}
