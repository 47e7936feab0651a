import { xml } from '../layout/picture/xml.ts';
import { culpritName } from '../tick/culprit.ts';
import type { History, TimedAction } from './collect.ts';
import { lengthOf, momentOf, percent } from './scale.ts';
import { sharesSvg } from './shares-svg.ts';
import { factsOf, timelineSvg } from './timeline-svg.ts';
import { waitsSvg } from './waits-svg.ts';

/** Lines of one table at most, so that people can still read the report. */
const MOST_LINES = 500;

/** A cell: text, or a number that is aligned right. */
type Cell = string | { readonly number: string };

/**
 * Renders a report as one HTML file without scripts or external resources. A guest's strings appear only as text.
 * @param rows of the timeline at most
 */
export function html(history: History, rows?: number): string {
  const names = new Map(history.domains.map(({ id, name }) => [id, name]));
  const nameOf = (id: string) => names.get(id) ?? id;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>domsched: ${xml(factsOf(history))}</title>
<style>${STYLE}</style>
</head>
<body>
<header><h1>domsched report</h1><p>${xml(factsOf(history))}</p></header>
<main>
${cards(history)}
${history.problems.length > 0 ? section('Problems', problems(history)) : ''}
<section class="picture" aria-label="Timeline" tabindex="0">${timelineSvg(history, rows)}</section>
<section class="picture" aria-label="CPU shares over time" tabindex="0">${sharesSvg(history)}</section>
${history.waits.length > 0 ? `<section class="picture" aria-label="Who waited for whom" tabindex="0">${waitsSvg(history)}</section>` : ''}
${section('Domains', domains(history))}
${section('CPU shares', shares(history, nameOf))}
${section('Held', held(history, nameOf))}
${history.waits.length > 0 ? section('Waits', waits(history)) : ''}
${section('Edits', actions(history, nameOf))}
</main>
</body>
</html>
`;
}

function cards(history: History): string {
  const { domains, rows, actions, durationMs } = history;
  const heldMs = rows.reduce((sum, row) => sum + row.heldMs, 0);
  const pausedUs = actions.reduce((sum, action) => sum + action.pausedUs, 0);
  const refused = actions.filter(({ outcome }) => outcome !== 'done').length;
  const ranMs = domains.reduce((sum, domain) => sum + domain.ranMs, 0);
  const facts: [string, string][] = [
    ['domains', String(domains.length)],
    ['processes seen', rows.length.toLocaleString('en-US')],
    ['CPU time of guests', lengthOf(ranMs)],
    ['held, all together', lengthOf(heldMs)],
    ['edits done', String(actions.length - refused)],
    ['refused or failed', String(refused)],
    ['domains paused for', lengthOf(pausedUs / 1000)],
    ['of the time', durationMs > 0 ? percent(pausedUs / 1000 / durationMs) : '–'],
  ];
  const items = facts.map(([term, value]) => `<div><dt>${term}</dt><dd>${value}</dd></div>`);
  return `<dl class="cards">${items.join('')}</dl>`;
}

function domains({ domains: all, durationMs }: History): string {
  const isAnyOverstated = all.some(({ overstated }) => overstated > 0);
  return table(
    [
      ...['Domain', 'Hypervisor', 'Kernel', '#vCPUs', '#CPU', 'Could not be read'],
      ...(isAnyOverstated ? ['Claims more CPU time than its host saw'] : []),
    ],
    all.map(({ name, hypervisor, kernel, vcpus, ranMs, failures, error, overstated }) => [
      name,
      hypervisor,
      kernel ?? '–',
      { number: String(vcpus) },
      { number: percent(shareOf(ranMs, durationMs)) },
      error === undefined ? '' : `at ${failures} samples: ${error.message} [${error.code}]`,
      ...(isAnyOverstated ? [overstated === 0 ? '' : `at ${overstated} samples`] : []),
    ]),
    'No domain was seen.',
  );
}

function problems({ problems: all }: History): string {
  return table(
    ['#From', '#To', '#Samples', 'Where', 'What'],
    all.map(({ from, to, lasts, samples, domain, code, message }) => [
      { number: momentOf(from) },
      { number: `${momentOf(to)}${lasts ? ' +' : ''}` },
      { number: String(samples) },
      domain ?? 'this host',
      `${message} [${code}]`,
    ]),
    'There was none.',
  );
}

function shares({ rows, durationMs }: History, nameOf: (id: string) => string): string {
  const busy = rows
    .filter(({ ranMs, heldMs }) => ranMs > 0 || heldMs > 0)
    .sort((a, b) => b.ranMs - a.ranMs || b.heldMs - a.heldMs);
  return table(
    ['Process', '#PID', 'Domain', '#CPU time', '#Of one CPU', '#Held'],
    busy.map(({ comm, kernelThread, pid, domain, ranMs, heldMs }) => [
      kernelThread ? `[${comm}]` : comm,
      { number: String(pid) },
      nameOf(domain),
      { number: lengthOf(ranMs) },
      { number: percent(shareOf(ranMs, durationMs)) },
      { number: heldMs > 0 ? lengthOf(heldMs) : '' },
    ]),
    'No process ran.',
  );
}

function waits({ waits: all }: History): string {
  const sum = all.reduce((total, { waitedMs }) => total + waitedMs, 0);
  return table(
    ['#Waited', '#Share', 'Process', 'Domain', 'Where', 'For whom'],
    all.map(({ domain, comm, culprit, place, waitedMs }) => [
      { number: lengthOf(waitedMs) },
      { number: percent(shareOf(waitedMs, sum)) },
      comm,
      domain,
      place,
      culpritName(culprit),
    ]),
    'Nothing waited.',
  );
}

function held({ rows }: History, nameOf: (id: string) => string): string {
  const periods = rows.flatMap((row) => row.held).sort((a, b) => a.from - b.from);
  return table(
    ['#From', '#For', 'Process', '#PID', 'Domain', 'Policy', 'Why'],
    periods.map(({ from, to, comm, pid, domain, policy, reason, lasts }) => [
      { number: momentOf(from) },
      { number: `${lengthOf(to - from)}${lasts ? ' +' : ''}` },
      comm,
      { number: String(pid) },
      nameOf(domain),
      policy,
      reason,
    ]),
    'Nothing was held.',
  );
}

function actions({ actions: all }: History, nameOf: (id: string) => string): string {
  const line = (action: TimedAction): Cell[] => [
    { number: momentOf(action.at) },
    action.action,
    action.comm ?? '',
    { number: action.pid === undefined ? '' : String(action.pid) },
    nameOf(action.domain),
    action.code === undefined ? action.outcome : `${action.outcome} [${action.code}]`,
    action.techniques.join(' + '),
    { number: action.pausedUs > 0 ? lengthOf(action.pausedUs / 1000) : '' },
    action.policy,
    action.reason,
  ];
  const head = [
    '#At',
    'Edit',
    'Process',
    '#PID',
    'Domain',
    'Outcome',
    'Technique',
    '#Paused',
    'Policy',
    'Why',
  ];
  return table(head, all.map(line), 'Nothing was edited.');
}

/** @param head titles; a title that begins with # marks a column of numbers */
function table(head: readonly string[], lines: readonly (readonly Cell[])[], none: string): string {
  if (lines.length === 0) return `<p class="none">${none}</p>`;
  const titles = head.map((title) =>
    title.startsWith('#')
      ? `<th scope="col" class="n">${title.slice(1)}</th>`
      : `<th scope="col">${title}</th>`,
  );
  const body = lines
    .slice(0, MOST_LINES)
    .map((line) => `<tr>${line.map(cell).join('')}</tr>`)
    .join('\n');
  const more = lines.length - MOST_LINES;
  const rest = more > 0 ? `<p class="none">${more.toLocaleString('en-US')} more lines are left out.</p>` : '';
  return `<div class="scroll" tabindex="0"><table><thead><tr>${titles.join('')}</tr></thead><tbody>\n${body}\n</tbody></table></div>${rest}`;
}

function cell(value: Cell): string {
  return typeof value === 'string' ? `<td>${xml(value)}</td>` : `<td class="n">${xml(value.number)}</td>`;
}

function section(title: string, body: string): string {
  return `<section><h2>${title}</h2>${body}</section>`;
}

function shareOf(ranMs: number, durationMs: number): number {
  return durationMs > 0 ? ranMs / durationMs : 0;
}

const STYLE = [
  ':root{--text:#1c2430;--soft:#5a6675;--page:#f4f6f9;--card:#fff;--line:#dfe4ea;color-scheme:light dark}',
  '@media(prefers-color-scheme:dark){:root{--text:#e8edf3;--soft:#a9b4c2;--page:#0c0f14;--card:#12161c;--line:#29313b}}',
  '*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--text);font:14px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}',
  'header,main{max-width:1290px;margin:0 auto;padding:0 24px}header{padding-top:28px}h1{font-size:26px;margin:0}',
  'header p{margin:2px 0 0;color:var(--soft)}h2{font-size:18px;margin:0 0 10px}',
  'section,.cards{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin:18px 0}',
  '.picture{padding:0;overflow-x:auto}.picture svg{display:block;width:100%;height:auto;min-width:1000px;border-radius:10px}',
  '.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:14px}.cards div{min-width:0}',
  'dt{color:var(--soft);font-size:12px}dd{margin:0;font-size:20px;font-weight:650;font-variant-numeric:tabular-nums}',
  '.scroll{overflow:auto;max-height:480px}table{border-collapse:collapse;width:100%}',
  'th{position:sticky;top:0;background:var(--card);text-align:left;font-size:12px;color:var(--soft);font-weight:600}',
  'th,td{padding:5px 18px 5px 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}',
  '.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.none{color:var(--soft);margin:0}',
  ':focus-visible{outline:2px solid #2563c9;outline-offset:2px}@media print{.scroll{max-height:none}}',
].join('');
