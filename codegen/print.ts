import {
  type FunctionDeclarationStructure,
  type ImportDeclarationStructure,
  IndentationText,
  NewLineKind,
  Project,
  QuoteKind,
  type StatementStructures,
  StructureKind,
  type WriterFunction,
} from 'ts-morph';

/** One module to print. Keys and expressions in it are TypeScript already. */
export interface ModuleText {
  /** File name without extension. */
  name: string;
  /** Comment lines that open the file. */
  header: string;
  imports?: { from: string; names: string[] }[];
  functions?: Omit<FunctionDeclarationStructure, 'kind'>[];
  /** Exported `as const`: an object by its properties (null for a shorthand one), or any expression. */
  exports: ({ name: string } & (
    | { properties: readonly (readonly [string, string | null])[] }
    | { value: string }
  ))[];
}

/** Formatted text of each module, by file name. The same input gives the same bytes. */
export function printModules(modules: readonly ModuleText[]): Map<string, string> {
  const project = new Project({
    useInMemoryFileSystem: true,
    skipLoadingLibFiles: true,
    manipulationSettings: {
      indentationText: IndentationText.TwoSpaces,
      newLineKind: NewLineKind.LineFeed,
      quoteKind: QuoteKind.Single,
    },
  });
  const texts = new Map<string, string>();
  for (const module of modules) {
    const file = `${module.name}.ts`;
    // Written with the project's settings, the text is formatted: `formatText` would change nothing, slowly.
    const source = project.createSourceFile(`/${file}`, { statements: statementsOf(module) });
    texts.set(file, source.getFullText());
    project.removeSourceFile(source);
  }
  return texts;
}

function statementsOf(module: ModuleText): (string | WriterFunction | StatementStructures)[] {
  const imports = (module.imports ?? []).map(
    ({ from, names }): ImportDeclarationStructure => ({
      kind: StructureKind.ImportDeclaration,
      moduleSpecifier: from,
      namedImports: names,
    }),
  );
  const functions = (module.functions ?? []).map(
    (declaration): FunctionDeclarationStructure => ({
      kind: StructureKind.Function,
      isExported: true,
      ...declaration,
    }),
  );
  // Not variable statements: those hang a long initializer by one level too many.
  const constants = module.exports.map(
    (exported): WriterFunction =>
      (writer) => {
        writer.write(`export const ${exported.name} = `);
        if ('value' in exported) writer.write(exported.value);
        else {
          writer.inlineBlock(() => {
            for (const [key, value] of exported.properties) {
              writer.writeLine(value === null ? `${key},` : `${key}: ${value},`);
            }
          });
        }
        writer.write(' as const;');
      },
  );
  const opening: WriterFunction = (writer) => writer.write(module.header).newLine().blankLine();
  return [opening, ...imports, ...functions, ...constants];
}
