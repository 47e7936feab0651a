/** What xenstore says of a domain, and everything that is made of it: names on terminals, in JSON and in selectors. */
import { Guest } from '../../../runtime/guest/guest.ts';
import { harmless, isNamed, jsonText, plainName, printable } from '../../../runtime/guest/text.ts';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import type { StoreLibrary } from '../../../runtime/hypervisor/xen/libraries.ts';
import { XenStore } from '../../../runtime/hypervisor/xen/store.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import type { ProcessView } from '../../../runtime/policy/world.ts';

/** Splits the values of an input: name and kernel's file. */
const NEXT = 0;
/** The first byte: the domain is attached to, and has no kernel in its memory; its name is not there. */
const NO_KERNEL = 1;
const NO_NAME = 2;
const PRINTABLE = /^[\x20-\x7e]*$/;

const empty = new FakeDomain({});

/** Xen's library with these values: it gives out memory that it wants back. */
class GivenValues {
  readonly #values: ReadonlyMap<string, Buffer>;
  readonly #given = new Map<bigint, Buffer>();

  constructor(values: ReadonlyMap<string, Buffer>) {
    this.#values = values;
  }

  get left(): number {
    return this.#given.size;
  }

  readonly xs_open = (): bigint => 1n;
  readonly xs_close = (): void => {};
  readonly xs_read = (_handle: bigint, _transaction: number, path: string, length: Uint32Array) => {
    const value = this.#values.get(path);
    if (value === undefined) return null;
    length[0] = value.length;
    const at = BigInt(this.#given.size + 1) << 12n;
    this.#given.set(at, value);
    return at;
  };
  readonly memcpy = (target: Uint8Array, at: bigint, size: number): void => {
    const value = this.#given.get(at)!;
    if (size > value.length || size > target.length) throw new Error(`${size} bytes of ${value.length}`);
    target.set(value.subarray(0, size));
  };
  readonly free = (at: bigint): void => {
    if (!this.#given.delete(at)) throw new Error('freed what it was not given');
  };
}

function input(flags: number, ...values: string[]): Buffer {
  return Buffer.concat([Buffer.from([flags]), Buffer.from(values.join(String.fromCharCode(NEXT)))]);
}

export function seeds(): Buffer[] {
  return [
    input(0, 'web', '/var/lib/xen/boot/vmlinuz'),
    input(NO_KERNEL, 'web', '/boot/vmlinuz-6.1.0'),
    input(NO_NAME, ''),
    input(0, 'größer *\\x41\u202e\x1b[2J'),
  ];
}

/** @throws what attaching to the domain throws; Error where what was said of it comes through, or is taken for another */
export async function read(bytes: Buffer): Promise<void> {
  const flags = bytes[0] ?? 0;
  const end = bytes.indexOf(NEXT, 1);
  const values = new Map([['/kernel', end < 0 ? Buffer.alloc(0) : bytes.subarray(end + 1)]]);
  if ((flags & NO_NAME) === 0) values.set('/name', bytes.subarray(1, end < 0 ? undefined : end));
  const library = new GivenValues(values);
  const store = XenStore.open(library as unknown as StoreLibrary)!;
  const name = store.read('/name') || 'domain-1';
  const kernelFile = store.read('/kernel');
  store.close();
  if (library.left > 0) throw new Error('not given back');

  const shown = printable(name);
  if (!PRINTABLE.test(shown)) throw new Error(`shown as ${JSON.stringify(shown)}`);
  if (!isNamed(name, shown) || plainName(shown) !== name) throw new Error(`${shown} is not its name`);
  const { identity: told } = JSON.parse(jsonText({ identity: { name, kernelFile } }));
  if (told.name !== name || told.kernelFile !== kernelFile) throw new Error('JSON says otherwise');
  const literal = shown.replaceAll('*', '\\*').replace(/^!/, '\\x21');
  const process = { domainName: name } as ProcessView;
  if (!selector([{ domain: literal }])(process))
    throw new Error(`${literal} does not select ${JSON.stringify(name)}`);

  // What is read of a guest that has a kernel does not depend on its name.
  if ((flags & NO_KERNEL) === 0) return;
  const identity = { ...empty.identity, name, ...(kernelFile && { kernelFile }) };
  const named = new Proxy(empty, {
    get(target, key) {
      const value: unknown = key === 'identity' ? identity : Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  try {
    (await Guest.attach(named, [])).detach();
  } catch (error) {
    const message = harmless((error as Error).message);
    if (/[\p{C}\p{Zl}\p{Zp}]/u.test(message)) throw new Error(`says ${JSON.stringify(message)}`);
    throw error;
  }
}
