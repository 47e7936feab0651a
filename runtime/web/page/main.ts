import { type Connected, Connection } from './connection.ts';
import { showFleet } from './fleet.ts';
import { type ListLine, ROW_HEIGHT, VirtualList } from './list.ts';
import { age, showEdits, showHeld, showWaits } from './panels.ts';
import { showProblems } from './problems.ts';
import { type PageRow, type PageView, rowsOf } from './rows.ts';
import { Store, shareOf } from './store.ts';
import { drawAxis, drawTrack, readPalette, type TimelineWindow } from './timeline.ts';

/** A list that is ordered by activity or shows only busy rows is rebuilt this often, in ms. */
const RESORT_MS = 2000;
const MOST_MEASURES = 2000;

const find = <E extends HTMLElement>(id: string) => document.getElementById(id) as E;
const viewport = find('viewport');
const status = find('status');
const facts = find('facts');
const axis = find<HTMLCanvasElement>('axis');
const filter = find<HTMLInputElement>('filter');
const sort = find<HTMLSelectElement>('sort');
const windowSize = find<HTMLSelectElement>('window');
const kernelThreads = find<HTMLInputElement>('kernel');
const busyOnly = find<HTMLInputElement>('busy');

const fleet = {
  section: find('fleet'),
  count: find('fleet-count'),
  state: find('fleet-state'),
  list: find('hosts'),
};

const problems = find('problems');
const store = new Store();
const collapsed = new Set<string>();
const list = new VirtualList(viewport, find('content'), draw);
let palette = readPalette();
let connected: Connected = 'connecting';
let listed = { revision: -1, at: 0, view: '' };
let isAsked = false;
let isDirty = true;
let measured = 0;

new Connection(
  (line, session) => {
    const begun = performance.now();
    store.apply(line, session);
    measure('domsched-apply', begun);
    isDirty = true;
    ask();
  },
  (state) => {
    connected = state;
    isDirty = true;
    ask();
  },
);

/** Draws with the browser's next frame, however many ticks come until then. */
function ask(): void {
  if (isAsked) return;
  isAsked = true;
  requestAnimationFrame(() => {
    isAsked = false;
    show();
  });
}

function view(): PageView {
  return {
    filter: filter.value.trim().toLowerCase(),
    kernelThreads: kernelThreads.checked,
    busyOnly: busyOnly.checked,
    sort: sort.value === 'busy' ? 'busy' : 'pid',
    collapsed,
    windowMs: Number(windowSize.value) * 1000,
  };
}

let frame: TimelineWindow;

function show(): void {
  const begun = performance.now();
  const now = view();
  const described = JSON.stringify([now, [...collapsed]]);
  const mayMove = now.busyOnly || now.sort === 'busy';
  const isOld = mayMove && begun - listed.at > RESORT_MS;
  if (listed.revision !== store.revision || listed.view !== described || isOld) {
    list.rows = rowsOf(store, now);
    listed = { revision: store.revision, at: begun, view: described };
  }
  const width = axis.clientWidth;
  frame = { store, windowMs: now.windowMs, width, height: ROW_HEIGHT, palette };
  list.render();
  if (isDirty) {
    isDirty = false;
    drawAxis(axis, { ...frame, height: axis.clientHeight });
    showStatus();
    showHeld(find('held'), find('held-count'), store);
    showFleet(fleet, store);
    showProblems(problems, store);
    showEdits(find('edits'), store);
    showWaits(find('waits'), store);
    showDetails();
  }
  measure('domsched-show', begun);
}

/** Adds an entry for the browser's profiler, and keeps their number bounded. */
function measure(name: string, begun: number): void {
  performance.measure(name, { start: begun });
  measured++;
  if (measured % MOST_MEASURES === 0) performance.clearMeasures();
}

function showStatus(): void {
  const { last } = store;
  const text = { connecting: 'connecting', live: 'live', lost: 'reconnecting' }[connected];
  const shown = connected === 'live' && last === undefined ? 'waiting for the first tick' : text;
  if (status.textContent !== shown) status.textContent = shown;
  status.dataset.state = connected;
  if (last === undefined) return;
  let processes = 0;
  for (const { tracks } of store.domains.values()) processes += tracks.size;
  const unreadable = [...store.domains.values()].filter(({ facts: { error } }) => error !== undefined).length;
  facts.textContent = [
    `${store.domains.size} ${store.domains.size === 1 ? 'domain' : 'domains'}`,
    ...(unreadable > 0 ? [`${unreadable} not readable`] : []),
    `${processes.toLocaleString('en-US')} processes`,
    `tick ${last.tick}`,
    ...(last.elapsedMs > 0
      ? [`every ${Math.round(last.elapsedMs)} ms, ${last.tookMs.toFixed(1)} ms each`]
      : []),
    new Date(last.time).toLocaleTimeString(),
  ].join('  ·  ');
}

/** Sets a text only if it changed: most of a list stays the same from tick to tick. */
function text(element: HTMLElement, value: string): void {
  if (element.textContent !== value) element.textContent = value;
}

function draw(line: ListLine): void {
  const row = line.row!;
  const { element, cells, canvas } = line;
  if (element.dataset.kind !== row.kind) {
    element.dataset.kind = row.kind;
    element.setAttribute('aria-level', row.kind === 'domain' ? '1' : '2');
  }
  const elapsedMs = store.last?.elapsedMs ?? 0;
  if (row.kind === 'domain') drawDomain(line, row, elapsedMs);
  else {
    const { process } = row.track;
    element.removeAttribute('aria-expanded');
    element.removeAttribute('title');
    text(cells.name, process.kernelThread ? `[${process.comm}]` : process.comm);
    text(cells.pid, String(process.pid));
    text(cells.state, process.held === undefined ? process.state : 'held');
    cells.state.dataset.state = cells.state.textContent;
    text(cells.nice, process.nice === 0 ? '' : String(process.nice));
    const share = shareOf(process.ranNs, elapsedMs);
    text(cells.cpu, percent(share));
    canvas.hidden = false;
    canvas.setAttribute('aria-label', `ran ${percent(share)} of one CPU since the last tick`);
    drawTrack(canvas, row.track, row.colour, frame);
  }
  cells.name.style.setProperty('--colour', palette.domains[row.colour % palette.domains.length]!);
}

function drawDomain(
  { element, cells, canvas }: ListLine,
  row: PageRow & { kind: 'domain' },
  elapsedMs: number,
): void {
  const { name, hypervisor, kernel, vcpus, error, weight, cap } = row.facts;
  element.setAttribute('aria-expanded', String(!collapsed.has(row.id)));
  text(cells.name, name);
  const known = [
    kernel === undefined ? '' : `Linux ${kernel}`,
    `${vcpus} ${vcpus === 1 ? 'vCPU' : 'vCPUs'}`,
    hypervisor,
    weight === undefined ? '' : `weight ${weight}`,
    cap ? `cap ${cap} %` : '',
    error === undefined ? '' : `${error.message} [${error.code}]`,
  ].filter((fact) => fact !== '');
  text(cells.state, known.join('  ·  '));
  cells.state.dataset.state = error === undefined ? '' : 'error';
  text(cells.pid, '');
  text(cells.nice, '');
  let ranNs = 0;
  for (const { process } of store.domains.get(row.id)?.tracks.values() ?? []) ranNs += process.ranNs;
  text(cells.cpu, percent(shareOf(ranNs, elapsedMs)));
  canvas.hidden = true;
}

function percent(share: number): string {
  return share === 0 ? '' : `${share < 9.95 ? share.toFixed(1) : Math.round(share)} %`;
}

function showDetails(): void {
  const row = list.active;
  const details = find('details');
  if (row === undefined || row.kind === 'domain') {
    details.replaceChildren();
    return;
  }
  const { process, domain } = row.track;
  const name = store.domains.get(domain)?.facts.name ?? domain;
  const lines: [string, string][] = [
    ['process', `${process.comm} ${process.pid}`],
    ['domain', name],
    ['parent', String(process.ppid)],
    ['state', process.state],
    ['nice', String(process.nice)],
    ['CPU', String(process.cpu)],
    ['CPU time', age(process.cpuNs / 1e9)],
  ];
  if (process.held !== undefined) {
    lines.push(
      ['held by', process.held.policy],
      ['because', process.held.reason],
      ['since', process.held.since],
    );
  }
  if (process.heldFor !== undefined) {
    const host = store.fleet?.heard.find(({ host: name }) => name === process.heldFor);
    const work = host?.classes.map(({ domain: at, comm }) => `${at}: ${comm}`).join(', ');
    lines.push(['now for', work ? `${process.heldFor} (${work})` : process.heldFor]);
  }
  details.replaceChildren(
    ...lines.flatMap(([term, value]) => {
      const dt = document.createElement('dt');
      dt.textContent = term;
      const dd = document.createElement('dd');
      dd.textContent = value;
      return [dt, dd];
    }),
  );
}

function toggle(row: PageRow | undefined): void {
  if (row?.kind !== 'domain') return;
  if (!collapsed.delete(row.id)) collapsed.add(row.id);
}

viewport.addEventListener('scroll', ask, { passive: true });
viewport.addEventListener('click', ({ target }) => {
  const index = target instanceof Element ? list.indexOf(target) : undefined;
  if (index === undefined) return;
  list.activate(index);
  toggle(list.active);
  isDirty = true;
  ask();
});
viewport.addEventListener('keydown', (event) => {
  const row = list.active;
  const isOpen = row?.kind === 'domain' && !collapsed.has(row.id);
  const keys: Record<string, () => void> = {
    ArrowDown: () => list.move(1),
    ArrowUp: () => list.move(-1),
    PageDown: () => list.move(list.page),
    PageUp: () => list.move(-list.page),
    Home: () => list.activate(0),
    End: () => list.activate(list.rows.length - 1),
    Enter: () => toggle(row),
    ' ': () => toggle(row),
    ArrowLeft: () => isOpen && toggle(row),
    ArrowRight: () => !isOpen && toggle(row),
  };
  const act = Object.hasOwn(keys, event.key) ? keys[event.key] : undefined;
  if (act === undefined) return;
  event.preventDefault();
  act();
  isDirty = true;
  ask();
});
for (const control of [filter, sort, windowSize, kernelThreads, busyOnly]) {
  control.addEventListener('input', () => {
    if (control !== windowSize) viewport.scrollTop = 0;
    isDirty = true;
    ask();
  });
}
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.target === filter) return;
  event.preventDefault();
  filter.focus();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  palette = readPalette();
  isDirty = true;
  ask();
});
new ResizeObserver(() => {
  isDirty = true;
  ask();
}).observe(viewport);
