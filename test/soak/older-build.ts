/** An earlier build of this program, made of this repository's own history. */
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rename, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';

/**
 * Builds what was committed before the first change that brought some words into a file. Its packages are those of now.
 * @returns the program; nothing if this checkout has no history that goes so far
 */
export async function buildBefore(words: string, file: string): Promise<string | undefined> {
  const git = (...args: string[]) => execa('git', args, { cwd: projectDirectory, reject: false });
  const { stdout: changes } = await git('log', '--format=%H', `-S${words}`, '--', file);
  const first = changes.trim().split('\n').at(-1)!;
  const { stdout: commit, exitCode } = await git('rev-parse', '--verify', '--quiet', `${first}^`);
  if (first === '' || exitCode !== 0) return undefined;

  const older = path.join(projectDirectory, '.cache', 'older');
  const built = path.join(older, commit);
  if (!existsSync(built)) {
    await mkdir(older, { recursive: true });
    const made = await mkdtemp(path.join(older, 'making-'));
    const tree = path.join(made, 'tree.tar');
    await execa('git', ['archive', '-o', tree, commit], { cwd: projectDirectory });
    await execa('tar', ['-xf', tree], { cwd: made });
    await rm(tree);
    await symlink(path.join(projectDirectory, 'node_modules'), path.join(made, 'node_modules'));
    await cp(path.join(projectDirectory, 'dist', 'wasm'), path.join(made, 'dist', 'wasm'), {
      recursive: true,
    });
    const bin = path.join(projectDirectory, 'node_modules', '.bin');
    await execa('npm', ['run', '-s', 'build'], { cwd: made, env: { PATH: `${bin}:${process.env.PATH}` } });
    await rename(made, built);
  }
  return path.join(built, 'dist', 'domsched.js');
}
