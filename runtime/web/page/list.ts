import type { PageRow } from './rows.ts';

/** Height of a line, in CSS pixels; must match style.css. */
export const ROW_HEIGHT = 28;
/** Lines beyond the visible ones, so that quick scrolling shows no gap. */
const SPARE = 6;

/** The elements of a line, reused for different rows. */
export interface ListLine {
  readonly element: HTMLElement;
  readonly cells: Readonly<Record<'name' | 'pid' | 'state' | 'nice' | 'cpu', HTMLElement>>;
  readonly canvas: HTMLCanvasElement;
  row: PageRow | undefined;
}

/**
 * Shows a long list with few elements: only as many lines as fit, moved to the scroll position. The document is as
 * small with 10,000 processes as with 50.
 */
export class VirtualList {
  readonly #viewport: HTMLElement;
  readonly #content: HTMLElement;
  readonly #lines: ListLine[] = [];
  readonly #draw: (line: ListLine) => void;
  #rows: readonly PageRow[] = [];
  #active = 0;

  /** @param draw fills a line with its row */
  constructor(viewport: HTMLElement, content: HTMLElement, draw: (line: ListLine) => void) {
    this.#viewport = viewport;
    this.#content = content;
    this.#draw = draw;
  }

  get rows(): readonly PageRow[] {
    return this.#rows;
  }

  get active(): PageRow | undefined {
    return this.#rows[this.#active];
  }

  set rows(rows: readonly PageRow[]) {
    const id = this.active?.id;
    this.#rows = rows;
    const at = rows.findIndex((row) => row.id === id);
    this.#active = at >= 0 ? at : Math.min(this.#active, Math.max(0, rows.length - 1));
    this.#content.style.height = `${rows.length * ROW_HEIGHT}px`;
    this.#viewport.setAttribute('aria-rowcount', String(rows.length + 1));
  }

  /** Makes a row the active one and brings it into view. */
  activate(index: number): void {
    this.#active = Math.max(0, Math.min(this.#rows.length - 1, index));
    const top = this.#active * ROW_HEIGHT;
    const { scrollTop, clientHeight } = this.#viewport;
    if (top < scrollTop) this.#viewport.scrollTop = top;
    else if (top + ROW_HEIGHT > scrollTop + clientHeight) {
      this.#viewport.scrollTop = top + ROW_HEIGHT - clientHeight;
    }
  }

  /** Moves the active row by some lines. */
  move(by: number): void {
    this.activate(this.#active + by);
  }

  /** Index of the row that contains an element. */
  indexOf(element: Element): number | undefined {
    const line = this.#lines.find((candidate) => candidate.element.contains(element));
    const at = line?.row === undefined ? -1 : this.#rows.indexOf(line.row);
    return at < 0 ? undefined : at;
  }

  /** Number of rows on a page. */
  get page(): number {
    return Math.max(1, Math.floor(this.#viewport.clientHeight / ROW_HEIGHT) - 1);
  }

  /** Draws all visible lines. */
  render(): void {
    const { clientHeight } = this.#viewport;
    // After the list became shorter, the browser may not have scrolled back yet.
    const bottom = Math.max(0, this.#rows.length * ROW_HEIGHT - clientHeight + ROW_HEIGHT);
    const top = Math.min(this.#viewport.scrollTop, bottom);
    const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - SPARE);
    const visible = Math.ceil(clientHeight / ROW_HEIGHT) + 2 * SPARE;
    const count = Math.min(visible, this.#rows.length - first);
    while (this.#lines.length < count) this.#lines.push(this.#make());
    for (const [i, line] of this.#lines.entries()) {
      const index = first + i;
      const row = i < count ? this.#rows[index] : undefined;
      line.row = row;
      line.element.hidden = row === undefined;
      if (row === undefined) continue;
      line.element.style.transform = `translateY(${index * ROW_HEIGHT}px)`;
      line.element.setAttribute('aria-rowindex', String(index + 2));
      line.element.classList.toggle('active', index === this.#active);
      if (index === this.#active) this.#viewport.setAttribute('aria-activedescendant', line.element.id);
      this.#draw(line);
    }
  }

  #make(): ListLine {
    const element = document.createElement('div');
    element.id = `line-${this.#lines.length}`;
    element.setAttribute('role', 'row');
    const cell = (name: string) => {
      const made = document.createElement('span');
      made.className = name;
      made.setAttribute('role', 'gridcell');
      element.append(made);
      return made;
    };
    const cells = {
      name: cell('name'),
      pid: cell('pid'),
      state: cell('state'),
      nice: cell('nice'),
      cpu: cell('cpu'),
    };
    const canvas = document.createElement('canvas');
    canvas.setAttribute('role', 'gridcell');
    element.append(canvas);
    this.#content.append(element);
    return { element, cells, canvas, row: undefined };
  }
}
