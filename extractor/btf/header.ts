import { ExtractError } from '../error.ts';
import { BTF_HEADER_SIZE, BTF_LAYOUT_SIZE, BTF_MAGIC, BTF_VERSION, type Trailer } from './format.ts';

/** Bytes from the start of the blob. */
export interface Range {
  start: number;
  end: number;
}

/** Positions of the parts of one BTF blob. */
export interface BtfHeader {
  types: Range;
  strings: Range;
  /**
   * Lengths of the types of each kind, if the blob has them. With "btf: Add BTF kind layout encoding to UAPI", 7.1-rc1,
   * a reader can skip kinds newer than itself.
   */
  layout: readonly Trailer[];
  /** A module's blob: its types and strings continue those of its kernel's BTF. */
  isSplit: boolean;
}

/**
 * Reads the header of a blob.
 * @param path named in messages
 * @throws ExtractError `corrupt-btf`; `wrong-architecture` for big-endian
 */
export function readHeader(blob: Uint8Array, path: string): BtfHeader {
  const view = new DataView(blob.buffer, blob.byteOffset, blob.length);
  const size = blob.length;
  if (size < BTF_HEADER_SIZE) throw corrupt(path, 0, `${size} bytes are too few for a header`);
  const magic = view.getUint16(0, true);
  if (view.getUint16(0, false) === BTF_MAGIC) {
    throw new ExtractError(
      'wrong-architecture',
      `${path} has BTF of a big-endian machine; only x86-64 kernels can be read`,
      { file: path },
    );
  }
  if (magic !== BTF_MAGIC) throw corrupt(path, 0, `magic number 0x${magic.toString(16)} instead of 0xeb9f`);
  const version = view.getUint8(2);
  if (version !== BTF_VERSION) throw corrupt(path, 2, `version ${version} instead of ${BTF_VERSION}`);
  const headerSize = view.getUint32(4, true);
  if (headerSize < BTF_HEADER_SIZE || headerSize > size) {
    throw corrupt(path, 4, `a header of ${headerSize} bytes`);
  }
  const range = (field: number, what: string): Range => {
    const start = headerSize + view.getUint32(field, true);
    const end = start + view.getUint32(field + 4, true);
    if (end > size) throw corrupt(path, field, `${what} end at byte ${end} of ${size}`);
    return { start, end };
  };
  const types = range(8, 'types');
  if (types.start % 4) throw corrupt(path, 8, 'types do not begin at a multiple of 4');
  const strings = range(16, 'strings');
  const isEmpty = strings.start === strings.end;
  if (!isEmpty && blob[strings.end - 1] !== 0) {
    throw corrupt(path, strings.start, 'strings do not end with a zero byte');
  }
  // Only the first blob of a chain begins with the empty string; later ones need not repeat it.
  const isSplit = isEmpty || blob[strings.start] !== 0;
  const hasLayout = headerSize >= BTF_HEADER_SIZE + 8;
  return { types, strings, isSplit, layout: hasLayout ? readLayout(view, range(24, 'kinds')) : [] };
}

function readLayout(view: DataView, { start, end }: Range): Trailer[] {
  const kinds = Math.floor((end - start) / BTF_LAYOUT_SIZE);
  return Array.from({ length: kinds }, (_, kind): Trailer => {
    const at = start + kind * BTF_LAYOUT_SIZE;
    return [view.getUint8(at), view.getUint8(at + 1)];
  });
}

/** @param offset of the defect, in bytes from the start of the blob */
export function corrupt(path: string, offset: number, what: string): ExtractError {
  return new ExtractError(
    'corrupt-btf',
    `the BTF of ${path} is corrupt at byte ${offset}: ${what}; get an intact copy of the file`,
    { file: path, offset },
  );
}
