import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { DomschedError } from './error.ts';

/** Write permission of group and others. */
const OTHERS_WRITE = 0o022;
const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
/** Of a file that is written over in its place. */
const PLACE_BYTES = 256;

/**
 * Where what has to outlive us is: DOMSCHED_RUNTIME_DIR, for root beside QEMU's sockets, else with the user's own run-time
 * files. Never below a folder in which everybody may make files: names there belong to whoever comes first.
 */
export function runtimeDirectory(env: NodeJS.ProcessEnv = process.env): string {
  const chosen = env.DOMSCHED_RUNTIME_DIR;
  if (chosen?.startsWith('/')) return chosen;
  const uid = process.getuid?.() ?? 0;
  const own = `/run/user/${uid}`;
  if (uid === 0) return '/run/domsched';
  return path.join(env.XDG_RUNTIME_DIR ?? (existsSync(own) ? own : '/run'), 'domsched');
}

/** The daemon's control socket. */
export function controlPath(): string {
  // Not *.sock: those in this directory are taken for QEMU's.
  return path.join(runtimeDirectory(), 'control');
}

/**
 * Makes a folder for our files, unless it is there. Nobody else may put anything into it, a link least of all.
 * @throws DomschedError `refused` for one that is somebody else's, or that others may write to; what the file system
 *   throws when it cannot be made
 */
export function makePrivate(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  // Who may write to the folder above may put another one in its place.
  for (const place of [path.dirname(directory), directory]) {
    const stat = lstatSync(place);
    const outer = place !== directory;
    // In a sticky folder (/tmp) nobody moves what is another's. A link above leads where its owner wants it to.
    const foreign = stat.uid !== process.geteuid?.() && !(outer && stat.uid === 0);
    const open =
      (stat.mode & OTHERS_WRITE) !== 0 && !(outer && (stat.isSymbolicLink() || (stat.mode & 0o1000) !== 0));
    if (!foreign && !open && (outer || stat.isDirectory())) continue;
    throw new DomschedError(
      'refused',
      `${place} is not ours alone: it belongs to somebody else, others may write to it, or it is a link; ` +
        'remove it, or choose another place with DOMSCHED_RUNTIME_DIR',
      { path: place },
    );
  }
}

/** Writes a small file into a folder that {@link makePrivate} made. A link is not followed, even there. */
export function writePrivate(file: string, text: string): void {
  write(file, O_TRUNC, text);
}

/**
 * The same for a text of JSON. Once the file is there with one as long, writing over it needs no room on the disk, so what has to be
 * written down to let somebody go can be.
 */
export function overwritePrivate(file: string, text: string): void {
  write(file, 0, text, PLACE_BYTES);
}

/** @param least bytes of the file; what is behind the text is blank */
function write(file: string, flags: number, text: string, least = 0): void {
  const handle = openSync(file, O_WRONLY | O_CREAT | O_NOFOLLOW | flags, 0o600);
  try {
    // As a whole: a single write on a full disk may take a part of it and report no error.
    writeFileSync(handle, text.padEnd(Math.max(least, fstatSync(handle).size)));
  } finally {
    closeSync(handle);
  }
}
