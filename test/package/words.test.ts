import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { projectDirectory } from '../../kernels/paths.ts';

const DECLARATION = /^(?:export )?(?:declare )?(?:abstract )?(?:interface|type|class) (\w+)[ <]/gm;

const SOURCES = ['*.ts', '{codegen,extractor,kernels,runtime,test}/**/*.ts'];

test('a type’s name means one thing: no two files declare it', (t) => {
  const places = new Map<string, string[]>();
  for (const file of globSync(SOURCES, { cwd: projectDirectory })) {
    const text = readFileSync(path.join(projectDirectory, file), 'utf8');
    for (const [, name] of text.matchAll(DECLARATION))
      places.set(name!, [...(places.get(name!) ?? []), file]);
  }
  t.true(places.has('DomschedError') && places.has('Tick'), 'declarations are found');
  t.deepEqual(
    [...places].filter(([, files]) => files.length > 1),
    [],
  );
});
