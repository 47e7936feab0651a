import { ts } from 'ts-morph';

/** Plain data of a generated module. */
export type Data = null | boolean | number | bigint | string | Data[] | Map<string, Data>;

/** The content of a generated module, read without running it. */
export interface ModuleData {
  /** Its constants by name. A reference to another or imported constant is its name as text. */
  readonly constants: ReadonlyMap<string, Data>;
  /** Module of each imported name. */
  readonly imports: ReadonlyMap<string, string>;
}

export function readModule(text: string): ModuleData {
  const source = ts.createSourceFile('module.ts', text, ts.ScriptTarget.Latest);
  const constants = new Map<string, Data>();
  const imports = new Map<string, string>();
  for (const statement of source.statements) {
    if (ts.isImportDeclaration(statement) && ts.isStringLiteral(statement.moduleSpecifier)) {
      const named = statement.importClause?.namedBindings;
      if (!named || !ts.isNamedImports(named)) continue;
      for (const { name } of named.elements) imports.set(name.text, statement.moduleSpecifier.text);
    }
    if (!ts.isVariableStatement(statement)) continue;
    for (const { name, initializer } of statement.declarationList.declarations) {
      if (ts.isIdentifier(name) && initializer) constants.set(name.text, evaluate(initializer, source));
    }
  }
  return { constants, imports };
}

function evaluate(node: ts.Expression, source: ts.SourceFile): Data {
  if (ts.isAsExpression(node)) return evaluate(node.expression, source);
  if (ts.isStringLiteralLike(node)) return node.text;
  if (ts.isNumericLiteral(node)) return Number(node.text);
  if (ts.isBigIntLiteral(node)) return BigInt(node.text.slice(0, -1));
  if (node.kind === ts.SyntaxKind.NullKeyword) return null;
  if (node.kind === ts.SyntaxKind.TrueKeyword) return true;
  if (node.kind === ts.SyntaxKind.FalseKeyword) return false;
  if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.MinusToken) {
    const value = evaluate(node.operand, source);
    return typeof value === 'number' || typeof value === 'bigint' ? -value : node.getText(source);
  }
  if (ts.isArrayLiteralExpression(node)) return node.elements.map((item) => evaluate(item, source));
  if (ts.isObjectLiteralExpression(node)) {
    const object = new Map<string, Data>();
    for (const property of node.properties) {
      if (ts.isShorthandPropertyAssignment(property)) object.set(property.name.text, property.name.text);
      else if (ts.isPropertyAssignment(property)) {
        object.set(keyOf(property.name, source), evaluate(property.initializer, source));
      }
    }
    return object;
  }
  return node.getText(source);
}

function keyOf(name: ts.PropertyName, source: ts.SourceFile): string {
  if (ts.isComputedPropertyName(name)) {
    return ts.isStringLiteralLike(name.expression) ? name.expression.text : name.getText(source);
  }
  return name.text;
}
