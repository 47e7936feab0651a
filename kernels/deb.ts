import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { execa } from 'execa';
import { KernelsError } from './error.ts';

export interface ExtractedFile {
  /** Bytes. */
  size: number;
  sha256: string;
}

/**
 * Extracts one file from a .deb without unpacking the rest: a kernel's debug package has gigabytes of modules besides.
 * Stops reading after that file and checks it against the package's checksum. On any failure `target` is removed.
 * @param member as `dpkg-deb --contents` spells it, e.g. `./boot/config-6.1.0-9-amd64`
 * @throws KernelsError `package-broken`, `no-space`
 */
export async function extractFile(
  deb: string,
  member: string,
  target: string,
  options: { signal?: AbortSignal | undefined; progress?: (bytes: number) => void } = {},
): Promise<ExtractedFile> {
  const expected = (await checksums(deb)).get(member.replace(/^\.\//, ''));
  const cancel = options.signal ? { cancelSignal: options.signal } : {};
  const unpack = execa('dpkg-deb', ['--fsys-tarfile', deb], { buffer: false, reject: false, ...cancel });
  const tar = execa('tar', ['--extract', '--to-stdout', '--occurrence=1', '--file=-', member], {
    buffer: { stdout: false },
    stdin: 'pipe',
    reject: false,
    ...cancel,
  });
  // tar exits once it has its file; that the rest of the package cannot be written to it is no error.
  const feed = pipeline(unpack.stdout, tar.stdin).catch(() => unpack.kill());
  const sha256 = createHash('sha256');
  const md5 = createHash('md5');
  let size = 0;
  const measure = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      sha256.update(chunk);
      md5.update(chunk);
      size += chunk.length;
      options.progress?.(size);
      done(null, chunk);
    },
  });
  try {
    await pipeline(tar.stdout, measure, createWriteStream(target));
    const { exitCode, stderr } = await tar;
    unpack.kill();
    await Promise.all([feed, unpack]);
    options.signal?.throwIfAborted();
    const found = md5.digest('hex');
    if (exitCode !== 0 || (expected !== undefined && expected !== found)) {
      throw new KernelsError(
        'package-broken',
        exitCode !== 0
          ? `${member} could not be taken out of ${deb}: ${stderr.trim() || `tar exited with ${exitCode}`}`
          : `${member} of ${deb} has checksum ${found}, the package says ${expected}: fetch it again`,
        { deb, member },
      );
    }
    return { size, sha256: sha256.digest('hex') };
  } catch (error) {
    unpack.kill();
    tar.kill();
    await Promise.allSettled([feed, unpack, tar]);
    await rm(target, { force: true });
    options.signal?.throwIfAborted();
    if ((error as NodeJS.ErrnoException).code === 'ENOSPC') {
      throw new KernelsError(
        'no-space',
        `no space left for ${target}: free some and start again`,
        { target },
        { cause: error },
      );
    }
    throw error;
  }
}

/** The package's MD5 sums, by path without leading `./`. */
export async function checksums(deb: string): Promise<Map<string, string>> {
  const { stdout } = await execa('dpkg-deb', ['--info', deb, 'md5sums'], { reject: false });
  return new Map(
    stdout
      .split('\n')
      .map((line) => /^([0-9a-f]{32}) {2}(.+)$/.exec(line))
      .filter((match) => match !== null)
      .map((match) => [match[2]!, match[1]!]),
  );
}
