import {
  type FunctionDeclarationStructure,
  type ImportDeclarationStructure,
  IndentationText,
  NewLineKind,
  Project,
  QuoteKind,
  StructureKind,
  VariableDeclarationKind,
  type VariableStatementStructure,
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
    const source = project.createSourceFile(`/${file}`, { statements: statementsOf(module) });
    source.formatText({ indentSize: 2, ensureNewLineAtEndOfFile: true });
    texts.set(file, source.getFullText());
    project.removeSourceFile(source);
  }
  return texts;
}

type Statement =
  | string
  | ImportDeclarationStructure
  | FunctionDeclarationStructure
  | VariableStatementStructure;

function statementsOf(module: ModuleText): Statement[] {
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
  const constants = module.exports.map(
    (exported): VariableStatementStructure => ({
      kind: StructureKind.VariableStatement,
      isExported: true,
      declarationKind: VariableDeclarationKind.Const,
      declarations: [
        {
          name: exported.name,
          initializer: (writer) => {
            if ('value' in exported) writer.write(exported.value);
            else {
              writer.inlineBlock(() => {
                for (const [key, value] of exported.properties) {
                  writer.writeLine(value === null ? `${key},` : `${key}: ${value},`);
                }
              });
            }
            writer.write(' as const');
          },
        },
      ],
    }),
  );
  return [`${module.header}\n`, ...imports, ...functions, ...constants];
}
