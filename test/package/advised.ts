/** What the product's own messages tell people to run: found in the source, so that no advice is forgotten. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { projectDirectory } from '../../kernels/paths.ts';

/** Where messages are written. The manual repeats what the commands say of themselves; pages and reports are no messages. */
const ROOMS = ['extractor', 'codegen', 'runtime', 'program.ts', 'domsched.ts'];
const APART = ['runtime/manual/', 'runtime/report/', 'runtime/web/page/', 'runtime/debian/'];

/** Stands for what is put into a message when it is made. */
const HOLE = '\u2026';

export interface Message {
  readonly file: string;
  readonly line: number;
  readonly text: string;
}

/** Every text of more than one word in the source, with a hole for what is put in; parts joined by + are one. */
export function messages(): Message[] {
  return ROOMS.flatMap(sources).flatMap((file) => {
    const text = readFileSync(path.join(projectDirectory, file), 'utf8');
    return textsOf(ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true));
  });
}

function sources(room: string): string[] {
  if (room.endsWith('.ts')) return [room];
  return readdirSync(path.join(projectDirectory, room), { recursive: true, encoding: 'utf8' })
    .map((file) => `${room}/${file}`)
    .filter((file) => file.endsWith('.ts') && !APART.some((folder) => file.startsWith(folder)));
}

/** Exported for its own test. */
export function textsOf(source: ts.SourceFile): Message[] {
  const found: Message[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return;
    const texts = ts.isExpression(node) ? spelt(node) : [];
    const { line } = source.getLineAndCharacterOfPosition(node.getStart());
    for (const text of texts)
      if (/\S\s+\S/.test(text)) found.push({ file: source.fileName, line: line + 1, text });
    if (texts.length === 0) ts.forEachChild(node, visit);
    else for (const inner of holesOf(node)) visit(inner);
  };
  visit(source);
  return found;
}

/** The texts that an expression may be: several where a condition chooses; none where it is no text. */
function spelt(node: ts.Expression): string[] {
  if (ts.isParenthesizedExpression(node)) return spelt(node.expression);
  if (ts.isStringLiteralLike(node)) return [node.text];
  if (ts.isConditionalExpression(node)) return [...spelt(node.whenTrue), ...spelt(node.whenFalse)];
  if (ts.isTemplateExpression(node))
    return [node.head.text + node.templateSpans.map(({ literal }) => HOLE + literal.text).join('')];
  if (!ts.isBinaryExpression(node) || node.operatorToken.kind !== ts.SyntaxKind.PlusToken) return [];
  const [left, right] = [spelt(node.left), spelt(node.right)];
  if (left.length === 0 && right.length === 0) return [];
  return (left.length ? left : [HOLE]).flatMap((a) => (right.length ? right : [HOLE]).map((b) => a + b));
}

/** What is put into a text, which may have texts of its own. */
function holesOf(node: ts.Node): ts.Expression[] {
  if (ts.isTemplateExpression(node)) return node.templateSpans.map(({ expression }) => expression);
  if (ts.isParenthesizedExpression(node)) return holesOf(node.expression);
  if (ts.isConditionalExpression(node))
    return [node.condition, ...holesOf(node.whenTrue), ...holesOf(node.whenFalse)];
  if (ts.isBinaryExpression(node)) return [...holesOf(node.left), ...holesOf(node.right)];
  return [];
}

/** What our programs take: names of commands, and of options. */
export interface OwnWords {
  readonly commands: ReadonlySet<string>;
  readonly programs: ReadonlySet<string>;
}

export interface Advice {
  readonly word: string;
  readonly start: number;
  readonly end: number;
}

/** Programs that Debian's packages here do not have, of which messages speak all the same. */
const ELSEWHERE = ['npm', 'xl', 'avml', 'avml-convert', 'makedumpfile', 'dumpvmcore', 'qemu-img', 'modprobe'];
/** Names of programs that are words of our messages, and mean no program there. */
const WORDS =
  'apply as comm cut dir echo expand factor false file find fold free gdb groups head id install join kexec kvm last less ' +
  'link logger look make more nice node open page paste ps reboot red renice reset script size sort split stat strings sum ' +
  'test time top touch tr true watch who whatis write yes';
const ORDINARY = new Set(WORDS.split(' '));

/** What a message may have told somebody to type. */
export function advisedIn(text: string, { commands, programs }: OwnWords): Advice[] {
  // Declarations of options, and what they are for.
  if (/^-/.test(text)) return [];
  const found: Advice[] = [];
  const collect = (pattern: RegExp, isAdvice: (match: RegExpExecArray) => boolean = () => true) => {
    for (const match of text.matchAll(pattern)) {
      if (isAdvice(match))
        found.push({ word: match[0], start: match.index, end: match.index + match[0].length });
    }
  };
  collect(/(?<![\w./-])domsched (\S+?)(?=[\s,;:.)`]|$)/g, ([, name]) => commands.has(name!));
  collect(/(?<![\w./\u2026-])--?[A-Za-z][\w-]*/g);
  collect(
    /(?<![\w./-])[a-z][\w.+-]*[a-z0-9](?![\w/(=-])/g,
    ([name]) => programs.has(name) && !ORDINARY.has(name),
  );
  collect(/\b(?:info [a-z]+|dump-guest-memory)\b/g);
  collect(/\b(?:DOMSCHED_[A-Z_]+|TMPDIR)\b/g);
  collect(/\blib[a-z]+\d\b/g);
  return found;
}

/** Every program that Debian's own packages here have, those that the Makefile lists and those that all systems have. */
export function installedPrograms(listed: readonly string[]): Set<string> {
  const query = (...args: string[]) =>
    execFileSync('dpkg-query', args, { encoding: 'utf8', maxBuffer: 64 << 20 });
  const field = (name: string) => `$\{${name}}`;
  const format = `${field('Package')} ${field('Priority')} ${field('db:Status-Status')}\n`;
  const basic = query('-W', '-f', format)
    .split('\n')
    .filter((line) => / (?:required|important) installed$/.test(line))
    .map((line) => line.split(' ')[0]!);
  const files = query('-L', ...basic, ...listed).split('\n');
  const programs = files.map((file) => /^(?:\/usr)?\/s?bin\/([^/]{2,})$/.exec(file)?.[1]);
  return new Set([...programs.filter((name) => name !== undefined), ...ELSEWHERE]);
}
