const isSource = import.meta.url.endsWith('.ts');

/** The folder of package.json: one level up from this one in a checkout, two once compiled into `dist/`. */
export const ROOT = new URL(isSource ? '../' : '../../', import.meta.url);

/** Where a module of the extractor is, for a thread to start with. @param name path in this folder, without its ending */
export function moduleUrl(name: string): URL {
  return new URL(isSource ? `extractor/${name}.ts` : `dist/extractor/${name}.js`, ROOT);
}
