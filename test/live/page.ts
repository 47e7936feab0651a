import type { Page } from 'playwright-core';
import type { Tick } from '../../runtime/tick/tick.ts';
import { until } from './until.ts';

/** A line of the page's list, as texts. */
interface ShownLine {
  readonly name: string;
  readonly pid: string;
  readonly state: string;
}

/** What the page shows at one moment. */
export interface ShownPage {
  readonly tick: number;
  readonly lines: readonly ShownLine[];
  /** Who is held and why, an entry each. */
  readonly held: readonly string[];
  readonly status: string;
}

/** Runs in the page, whose types the tests outside of it do not have. */
const LOOK = `(() => {
  const rows = [...document.querySelectorAll('#content > [role=row]:not([hidden])')];
  rows.sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex'));
  const cell = (row, name) => row.querySelector('.' + name).textContent;
  return {
    tick: Number(/tick (\\d+)/.exec(document.getElementById('facts').textContent)?.[1] ?? 0),
    lines: rows.map((row) => ({ name: cell(row, 'name'), pid: cell(row, 'pid'), state: cell(row, 'state') })),
    held: [...document.querySelectorAll('#held li:not(.none)')].map(({ textContent }) => textContent),
    status: document.getElementById('status').textContent,
  };
})()`;

export function look(page: Page): Promise<ShownPage> {
  return page.evaluate<ShownPage>(LOOK);
}

/** The page and the API's state at the same tick. @throws Error when they never meet */
export async function lookBoth(
  page: Page,
  url: string,
  token: string,
): Promise<{ shown: ShownPage; state: Tick }> {
  return until(
    'the page shows the state of the API',
    async (swallow) => {
      const headers = { authorization: `Bearer ${token}` };
      const answer = await fetch(new URL('/api/state', url), { headers }).catch(swallow);
      if (answer?.status !== 200) return undefined;
      const state = (await answer.json()) as Tick;
      const shown = await look(page);
      return shown.tick === state.tick && shown.status === 'live' ? { shown, state } : undefined;
    },
    300_000,
  );
}

/** What the page's lines have to be. It leaves kernel threads out. */
export function linesOf(state: Tick): ShownLine[] {
  return state.domains.flatMap(({ name, kernel, vcpus, hypervisor, weight, cap, processes }) => [
    {
      name,
      pid: '',
      state: [
        `Linux ${kernel}`,
        `${vcpus} vCPUs`,
        hypervisor,
        ...(weight === undefined ? [] : [`weight ${weight}`]),
        ...(cap ? [`cap ${cap} %`] : []),
      ].join('  ·  '),
    },
    ...processes
      .filter(({ kernelThread }) => !kernelThread)
      .toSorted((a, b) => a.pid - b.pid)
      .map(({ comm, pid, state: doing }) => ({ name: comm, pid: String(pid), state: doing })),
  ]);
}
