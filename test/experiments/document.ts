/** docs/experiments.md, made of raw data alone. */
import type { Experiment, Findings } from './experiment.ts';
import { markdownTable } from './markdown.ts';
import type { RawData } from './raw.ts';
import type { ClaimVerdict } from './verdict.ts';

export interface Chapter {
  readonly experiment: Experiment;
  readonly raw: RawData;
  readonly findings: Findings;
}

export function chapterOf(experiment: Experiment, raw: RawData): Chapter {
  return { experiment, raw, findings: experiment.judge(raw.setup, raw.samples) };
}

/** @param folder where pictures and raw data are, from where the document is */
export function documentOf(chapters: readonly Chapter[], introduction: string, folder: string): string {
  const parts = [introduction.trim(), summary(chapters)];
  for (const chapter of chapters) parts.push(section(chapter, folder));
  return `${parts.join('\n\n')}\n`;
}

function summary(chapters: readonly Chapter[]): string {
  const rows = chapters.flatMap(({ experiment, findings }) =>
    findings.verdicts.map(({ claim, outcome, found }) => [experiment.name, claim, found, `**${outcome}**`]),
  );
  return `## All claims\n\n${markdownTable(['experiment', 'claim', 'found', 'verdict'], rows)}`;
}

function section({ experiment, raw, findings }: Chapter, folder: string): string {
  return [
    `## ${experiment.title}`,
    findings.text.trim(),
    ...findings.pictures.map(({ name, alt }) => `![${alt}](${folder}/${name}.svg)`),
    findings.verdicts.map(verdictLine).join('\n'),
    provenance(raw, `${folder}/${experiment.name}.jsonl`),
  ].join('\n\n');
}

export function verdictLine({ claim, outcome, found, because }: ClaimVerdict): string {
  return `- **${outcome}**: ${claim}: ${found}. ${because}`;
}

function provenance({ setup, samples }: RawData, file: string): string {
  const { machine, versions, load } = setup;
  return (
    `Raw data: [\`${file}\`](${file}), ${samples.length} samples of ${setup.begun.slice(0, 16).replace('T', ' ')} (UTC), form ` +
    `\`${setup.form}\`, commit ${setup.commit}. ${machine.cpu}, ${machine.cpus} CPUs, ${Math.round(machine.memoryMiB / 1024)} GiB, ` +
    `Linux ${machine.kernel}; ${setup.xen === undefined ? '' : `Xen ${setup.xen} in `}QEMU ${versions.qemu} (${setup.accelerator}), Node.js ${versions.node}, domsched ${versions.domsched}; ` +
    `load ${load[0].toFixed(1)} at the begin, ${load[1].toFixed(1)} at the end; all of the experiment at nice ${setup.nice}. Guests: ${setup.guests.join('; ')}.`
  );
}
