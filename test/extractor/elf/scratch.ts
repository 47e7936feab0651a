import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type OpenOptions, openKernelFile } from '../../../extractor/elf/open.ts';
import { ExtractError, type ExtractErrorCode } from '../../../extractor/error.ts';

/** A directory for the test's files, gone when the test is. */
export function scratch(t: { teardown(fn: () => void): void }): (name: string) => string {
  const directory = mkdtempSync(join(tmpdir(), 'domsched-test-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return (name) => join(directory, name);
}

/** The code with which a file is refused, after also reading all that can be read of it; null when it is fine. */
export async function refusal(path: string, options: OpenOptions = {}): Promise<ExtractErrorCode | null> {
  try {
    await using file = await openKernelFile(path, { debugRoots: [], ...options });
    for (const name of file.sectionNames) file.section(name)?.read();
    file.buildId;
    file.banner();
    file.config();
    file.lookup(['runqueues', 'linux_banner']);
    for (const _ of file.symbols());
    await file.sha256();
    return null;
  } catch (error) {
    if (error instanceof ExtractError) return error.code;
    throw error;
  }
}
