/** A disagreement, seen from the three sides that should agree. */
export interface LayoutFinding {
  /** Which comparison found it. */
  check: 'generated' | 'engines' | 'facts' | 'config' | 'manifest';
  /** Subject of the finding: `rq.nr_running: offset`, `build-id`. */
  subject: string;
  /** What the committed layout says. */
  generated: string;
  /** What the kernel file says, with file, engine and build-id. */
  kernel: string;
  /** What the kernel's configuration says. */
  config: string;
}

/** A finding as text, one line per side. */
export function render(kernel: string, { check, subject, ...sides }: LayoutFinding): string {
  return [
    `${kernel}: ${subject} (${check})`,
    `    generated  ${sides.generated}`,
    `    kernel     ${sides.kernel}`,
    `    config     ${sides.config}`,
  ].join('\n');
}
