import {
  type ImportDeclarationStructure,
  IndentationText,
  NewLineKind,
  Project,
  QuoteKind,
  StructureKind,
  type WriterFunction,
} from 'ts-morph';

/** One module to print. Keys and expressions in it are TypeScript already. */
export interface ModuleText {
  /** Comment lines that open the file. */
  header: string;
  imports?: { from: string; names: string[] }[];
  /** `as const`: objects by their properties (null for a shorthand one), or any expression. The last one is exported. */
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
  // Not variable statements: those hang a long initializer by one level too many.
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
  // Written with the project's settings, the text is formatted: `formatText` would change nothing, slowly.
  const source = project.createSourceFile('/module.ts', {
    statements: [opening, ...declarations, ...statements],
  });
  const text = source.getFullText();
  project.removeSourceFile(source);
  return text;
}
