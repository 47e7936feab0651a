/**
 * `npm run check:layouts [-- ID …]` checks the committed layouts against every kernel on this machine. Exit code 0 if
 * all agree, 1 if something differs or there is no kernel to check.
 */
import process from 'node:process';
import { readStore } from '../codegen/store.ts';
import { type CheckResult, checkKernel } from './check.ts';
import { render } from './finding.ts';
import { debianKernels, isReleaseOf } from './manifest.ts';
import { generatedDirectory } from './paths.ts';
import { subjects } from './subjects.ts';

/** Findings shown per kernel; the rest are counted. */
const FINDINGS_SHOWN = 20;

function summarize({ id, release, buildId, findings, notes, counts }: CheckResult): string {
  const lines = [
    `${findings.length === 0 ? 'ok  ' : 'FAIL'} ${id}: ${release}, build-id ${buildId?.slice(0, 12) ?? 'none'}: ` +
      `${counts.structs} structures, ${counts.members} members by ${counts.engines.join(' = ')}, ` +
      `${counts.rules} facts of its config${counts.facts > 0 ? `, ${counts.facts} measured structures` : ''}`,
    ...notes.map((note) => `     note: ${note}`),
    ...findings.slice(0, FINDINGS_SHOWN).map((finding) => `  ${render(release, finding)}`),
  ];
  if (findings.length > FINDINGS_SHOWN) lines.push(`  and ${findings.length - FINDINGS_SHOWN} more`);
  return `${lines.join('\n')}\n`;
}

/** Reports committed layouts that no kernel on this machine can confirm. */
async function reportUnchecked(results: readonly CheckResult[]): Promise<void> {
  for (const kernel of await readStore(generatedDirectory)) {
    if (results.some(({ buildId }) => buildId !== null && buildId === kernel.buildId)) continue;
    const debian = debianKernels().some((candidate) => isReleaseOf(candidate, kernel.release));
    const remedy = debian
      ? "`make kernels-all` fetches all of Debian's, if the archive still has this release"
      : '`make kernels` builds ours';
    process.stdout.write(`     not checked: ${kernel.folder} (its kernel is not here; ${remedy})\n`);
  }
}

async function main(ids: readonly string[]): Promise<number> {
  const all = subjects();
  const unknown = ids.filter((id) => !all.some((subject) => subject.id === id));
  const wanted = ids.length > 0 ? all.filter(({ id }) => ids.includes(id)) : all;
  if (wanted.length === 0 || unknown.length > 0) {
    process.stderr.write(
      `check:layouts: ${unknown.length > 0 ? `${unknown.join(', ')}: ` : ''}no such kernel on this machine; ` +
        "`make kernels-debian` fetches Debian's, `make kernels` builds the O(1) guest\n",
    );
    return 1;
  }
  const results: CheckResult[] = [];
  for (const subject of wanted) {
    const result = await checkKernel(subject, { outDir: generatedDirectory });
    process.stdout.write(summarize(result));
    results.push(result);
  }
  if (ids.length === 0) await reportUnchecked(results);
  return results.some(({ findings }) => findings.length > 0) ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
