const isSource = import.meta.url.endsWith('.ts');

/** The folder of package.json: one level up from this one in a checkout, two after compilation into `dist/`. */
export const ROOT = new URL(isSource ? '../' : '../../', import.meta.url);
