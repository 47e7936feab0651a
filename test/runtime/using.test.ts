import path from 'node:path';
import test from 'ava';
import { Node, Project, SyntaxKind, VariableDeclarationKind } from 'ts-morph';
import { projectDirectory } from '../../kernels/paths.ts';

const SCOPED: ReadonlySet<string> = new Set([
  VariableDeclarationKind.Using,
  VariableDeclarationKind.AwaitUsing,
]);

test('no function gives away a promise and disposes of what it needs: what follows using is awaited', (t) => {
  t.timeout(600_000);
  const project = new Project({ tsConfigFilePath: path.join(projectDirectory, 'tsconfig.build.json') });
  let scopes = 0;
  for (const file of project.getSourceFiles()) {
    for (const statement of file.getDescendantsOfKind(SyntaxKind.VariableStatement)) {
      if (!SCOPED.has(statement.getDeclarationKind())) continue;
      scopes += 1;
      const block = statement.getParentOrThrow();
      const owner = statement.getFirstAncestor(Node.isFunctionLikeDeclaration);
      for (const returned of block.getDescendantsOfKind(SyntaxKind.ReturnStatement)) {
        if (returned.getPos() < statement.getPos()) continue;
        if (returned.getFirstAncestor(Node.isFunctionLikeDeclaration) !== owner) continue;
        const value = returned.getExpression();
        const symbol = value?.getType().getSymbol()?.getName();
        t.not(
          symbol,
          'Promise',
          `${file.getBaseName()}:${returned.getStartLineNumber()}: ${value?.getText()}`,
        );
      }
    }
  }
  t.true(scopes > 10, 'scopes were looked at');
});
