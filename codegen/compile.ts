import { ts } from 'ts-morph';

/**
 * JavaScript of a generated module, as `tsc` would write it: what the compiled program loads, so that a kernel
 * extracted just now needs no build.
 */
export function compileModule(text: string): string {
  return ts.transpileModule(text, {
    compilerOptions: {
      target: ts.ScriptTarget.ES2024,
      module: ts.ModuleKind.ESNext,
      newLine: ts.NewLineKind.LineFeed,
      verbatimModuleSyntax: true,
      rewriteRelativeImportExtensions: true,
    },
  }).outputText;
}

/** Every `.ts` of a folder as `.js`. */
export function compileAll(files: ReadonlyMap<string, string>): Map<string, string> {
  return new Map([...files].map(([name, text]) => [name.replace(/\.ts$/, '.js'), compileModule(text)]));
}
