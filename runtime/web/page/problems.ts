import { problemsOf } from '../../tick/problems.ts';
import type { Store } from './store.ts';

/** Shows what an operator has to see to: guests that may be half written, a journal that cannot be written. */
export function showProblems(list: HTMLElement, { domains, last }: Store): void {
  const { journal } = last ?? {};
  const problems = problemsOf({
    domains: [...domains.values()].map(({ facts }) => facts),
    ...(journal && { journal }),
  });
  const texts = problems.map(({ code, domain, message, since }) => {
    const when = since === undefined ? '' : ` since ${new Date(since).toLocaleString()}`;
    return `${domain === undefined ? '' : `${domain}: `}${message}${when} [${code}]`;
  });
  // An alert is read aloud whenever it changes.
  if ([...list.children].map(({ textContent }) => textContent).join('\n') === texts.join('\n')) return;
  list.hidden = texts.length === 0;
  list.replaceChildren(
    ...texts.map((text) => {
      const item = document.createElement('li');
      item.textContent = text;
      return item;
    }),
  );
}
