import {
  type ImportDeclarationStructure,
  IndentationText,
  NewLineKind,
  Project,
  QuoteKind,
  StructureKind,
  type WriterFunction,
} from 'ts-morph';

/** One module to print. Its keys and expressions are already TypeScript. */
export interface ModuleText {
  /** Comment lines at the start of the file. */
  header: string;
  imports?: { from: string; names: string[] }[];
  /** Printed with `as const`: objects by property (null for shorthand), or any expression. The last one is exported. */
  constants: ({ name: string } & (
    | { properties: readonly (readonly [string, string | null])[] }
    | { value: string }
  ))[];
}

const project = new Project({
  useInMemoryFileSystem: true,
  skipLoadingLibFiles: true,
  manipulationSettings: {
    indentationText: IndentationText.TwoSpaces,
    newLineKind: NewLineKind.LineFeed,
    quoteKind: QuoteKind.Single,
  },
});

/** Formatted text of a module. The same input gives the same bytes. */
export function printModule({ header, imports = [], constants }: ModuleText): string {
  const declarations = imports.map(
    ({ from, names }): ImportDeclarationStructure => ({
      kind: StructureKind.ImportDeclaration,
      moduleSpecifier: from,
      namedImports: names,
    }),
  );
  // No variable statements, because those indent a long initializer one level too far.
  const statements = constants.map(
    (constant, index): WriterFunction =>
      (writer) => {
        if (index === constants.length - 1) writer.write('export ');
        writer.write(`const ${constant.name} = `);
        if ('value' in constant) writer.write(constant.value);
        else {
          writer.inlineBlock(() => {
            for (const [key, value] of constant.properties) {
              writer.writeLine(value === null ? `${key},` : `${key}: ${value},`);
            }
          });
        }
        writer.write(' as const;');
      },
  );
  const opening: WriterFunction = (writer) => writer.write(header).newLine().blankLine();
  // Printed with the project's settings, the text is already formatted; `formatText` would take time and change
  // nothing.
  const source = project.createSourceFile('/module.ts', {
    statements: [opening, ...declarations, ...statements],
  });
  const text = source.getFullText();
  project.removeSourceFile(source);
  return text;
}
