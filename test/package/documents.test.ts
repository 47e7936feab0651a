import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { projectDirectory } from '../../kernels/paths.ts';

const OURS = ['extractor', 'codegen', 'runtime', 'kernels', 'test'];

test('docs/security.md names files that there are, and tests for every promise', (t) => {
  const text = readFileSync(path.join(projectDirectory, 'docs/security.md'), 'utf8');
  const files = OURS.flatMap((folder) =>
    readdirSync(path.join(projectDirectory, folder), { recursive: true, encoding: 'utf8' }).map(
      (file) => `/${folder}/${file}`,
    ),
  );
  const rows = text.split('\n').filter((line) => line.startsWith('| ') && !/^\| (promise|---)/.test(line));
  t.true(rows.length > 20);
  for (const row of rows) {
    const [, mechanism, proof] = row.split(/(?<!\\)\|/).slice(1, -1);
    for (const cell of [mechanism!, proof!]) {
      const named = [...cell.matchAll(/`([\w./-]+(?:\.ts|\.md|\.service|\/))`/g)].map(([, file]) => file!);
      t.true(named.length > 0, row);
      for (const file of named) {
        const found = file.endsWith('/')
          ? existsSync(path.join(projectDirectory, file))
          : existsSync(path.join(projectDirectory, file)) || files.some((ours) => ours.endsWith(`/${file}`));
        t.true(found, `${file} in: ${row}`);
      }
    }
    t.regex(proof!, /\.test\.ts|every-edit\.ts/, row);
  }
});

const architecture = readFileSync(path.join(projectDirectory, 'docs/architecture.md'), 'utf8');
const ways = architecture.split(/^### /m).slice(1);

test('docs/architecture.md has the ways of extract, ps, hold and a tick', (t) => {
  t.deepEqual(
    ways.map((way) => way.split(/[:\n]/, 1)[0]),
    ['`extract`', '`ps`', '`hold`', 'One tick of the daemon'],
  );
});

for (const way of ways) {
  test(`docs/architecture.md: each file is there and is imported by the one before: ${way.split('\n', 1)[0]}`, (t) => {
    const above: string[] = [];
    for (const [, indent, file] of way.matchAll(/^( *)- `([\w./-]+\.ts)`/gm)) {
      const depth = indent!.length / 2;
      const text = readFileSync(path.join(projectDirectory, file!), 'utf8');
      t.true(text.length > 0);
      const importer = above[depth - 1];
      t.is(importer === undefined, depth === 0, `${file} is too far to the right`);
      if (importer !== undefined) t.true(importsOf(importer).includes(file!), `${importer} imports ${file}`);
      above.splice(depth, Infinity, file!);
    }
    t.true(above.length > 2);
  });
}

/** What a file of ours imports, at its start or later, as paths in the project. */
function importsOf(file: string): string[] {
  const text = readFileSync(path.join(projectDirectory, file), 'utf8');
  const found = text.matchAll(/(?:from|import\() ?'(\.[^']+)'/g);
  return [...found].map(([, to]) => path.join(path.dirname(file), to!));
}

test('files that CONTRIBUTING.md and docs/decisions/ name are there', (t) => {
  const folder = path.join(projectDirectory, 'docs/decisions');
  const pages = readdirSync(folder).map((page) => path.join(folder, page));
  t.true(pages.length > 5);
  for (const page of [path.join(projectDirectory, 'CONTRIBUTING.md'), ...pages]) {
    const named = readFileSync(page, 'utf8').matchAll(
      /`((?:runtime|extractor|codegen|kernels|docs|test)\/[\w./-]+)`/g,
    );
    for (const [, file] of named)
      t.true(existsSync(path.join(projectDirectory, file!)), `${file} in ${page}`);
  }
});

/** All documents of ours, by path in the project. */
const documents = [
  ...['README.md', 'CONTRIBUTING.md'],
  ...['docs', ...OURS].flatMap((folder) =>
    readdirSync(path.join(projectDirectory, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.md'))
      .map((file) => path.join(folder, file)),
  ),
];
test('README.md lists the rooms of rooms.config.js, and folders that there are', (t) => {
  const config = readFileSync(path.join(projectDirectory, 'rooms.config.js'), 'utf8');
  const [, rows] = /const ROWS = \[(.*?)\n\];/s.exec(config)!;
  const rooms = [...rows!.matchAll(/'([a-z/]+)'/g)].map(([, room]) => room!);
  t.true(rooms.length > 20);
  const text = readFileSync(path.join(projectDirectory, 'README.md'), 'utf8');
  const listed = [...text.matchAll(/^\| ((?:`[\w/]+\/`(?:, )?)+) \|/gm)].flatMap(([, names]) =>
    names!.split(', ').map((name) => name.slice(1, -2)),
  );
  for (const room of listed) t.true(existsSync(path.join(projectDirectory, room)), room);
  t.deepEqual(
    rooms.filter((room) => !listed.includes(room)),
    [],
  );
});

test('codegen/README.md says how many files generated/ has', (t) => {
  const folder = path.join(projectDirectory, 'generated');
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((file) => file.isFile());
  const structures = readdirSync(path.join(folder, 'structs')).length;
  const bytes = files.reduce((sum, file) => sum + statSync(path.join(file.parentPath, file.name)).size, 0);
  const figures = `${files.length}, ${(bytes / 1e6).toFixed(2)} MB (${structures} structures)`;
  t.true(readFileSync(path.join(projectDirectory, 'codegen/README.md'), 'utf8').includes(figures), figures);
});

const { scripts } = JSON.parse(readFileSync(path.join(projectDirectory, 'package.json'), 'utf8'));
const makefile = readFileSync(path.join(projectDirectory, 'Makefile'), 'utf8');

for (const document of documents) {
  const text = readFileSync(path.join(projectDirectory, document), 'utf8');
  const commands = [...text.matchAll(/\b(npm run(?: -s)?|make) ([a-z][\w:-]*)(?=[`\s])/g)];
  // Prose has the word `make` too: it is a command in code alone.
  const named = commands.filter(([whole, tool]) => tool !== 'make' || text.includes(`\`${whole}`));
  if (named.length === 0) continue;
  test(`${document}: the commands of npm and make that it names are there`, (t) => {
    for (const [whole, tool, target] of named)
      t.true(tool === 'make' ? makefile.includes(`\n${target}:`) : target! in scripts, whole);
  });
}

test('where CONTRIBUTING.md leads from a command to a README, that has the command', (t) => {
  const text = readFileSync(path.join(projectDirectory, 'CONTRIBUTING.md'), 'utf8');
  const led = [...text.matchAll(/`(npm run [\w:-]+)`\s+\(`([\w/.-]+\.md)`\)/g)];
  t.true(led.length > 0);
  for (const [, command, readme] of led)
    t.true(
      readFileSync(path.join(projectDirectory, readme!), 'utf8').includes(`\`${command}\``),
      `${readme}: ${command}`,
    );
});
