import type { Draft } from '../../edit/draft.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get, put, type Word } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { DomschedError } from '../../error.ts';
import { formatAddress, type GuestVirtual } from '../../memory/address.ts';
import { AddressSet } from '../../memory/address-map.ts';

/** Members of `struct rb_node`. */
export interface RbMembers {
  readonly __rb_parent_color: Word;
  readonly rb_left: Word;
  readonly rb_right: Word;
}

/** Addresses of one `struct rb_root_cached`. */
export interface RbRoot {
  /** Address of `rb_root.rb_node`. */
  readonly node: GuestVirtual;
  /** Address of `rb_leftmost`. */
  readonly leftmost: GuestVirtual;
  /** Name for messages: `rq[1].cfs`. */
  readonly name: string;
}

/** RB_BLACK is 1 in bit 0 of `__rb_parent_color` (include/linux/rbtree_augmented.h). The word is aligned to 8. */
const BLACK = 1n;
const COLOR_BITS = 7n;
/** Bounds every path: a red-black tree of all tasks that a guest may have is not half as high. */
export const MAX_HEIGHT = 64;
const NULL = 0n as GuestVirtual;
const POINTER: Word = { offset: 0, size: 8 };

/** Recomputes what a node keeps of its subtree from its own and its children's values. */
export type Augment = (node: GuestVirtual) => void;

/**
 * A guest's red-black tree, edited in a draft with textbook insertion and removal (Cormen et al., chapter 13). The
 * kernel accepts any tree that has the same nodes in the same order and keeps the two rules.
 */
export class RbTree {
  readonly #draft: Draft;
  readonly #members: RbMembers;
  readonly #root: RbRoot;
  readonly #augment: Augment | null;
  /** Nodes whose children changed; what they keep of their subtrees is recomputed at the end. */
  readonly #touched = new AddressSet<GuestVirtual>();

  constructor(draft: Draft, members: RbMembers, root: RbRoot, augment: Augment | null) {
    this.#draft = draft;
    this.#members = members;
    this.#root = root;
    this.#augment = augment;
  }

  /**
   * Inserts a node behind those that are equal.
   * @param before whether the new node comes before another one
   */
  insert(node: GuestVirtual, before: (other: GuestVirtual) => boolean): void {
    let parent = NULL;
    let first = true;
    let left = false;
    for (let at = this.#top(), height = 0; at !== NULL; at = left ? this.#left(at) : this.#right(at)) {
      this.#bound(height++);
      parent = at;
      left = before(at);
      if (!left) first = false;
    }
    this.#put(node, this.#members.rb_left, NULL, 'rb_left');
    this.#put(node, this.#members.rb_right, NULL, 'rb_right');
    this.#link(node, parent, 0n);
    if (parent === NULL) this.#setTop(node);
    else if (left) this.#setLeft(parent, node);
    else this.#setRight(parent, node);
    if (first) this.#setLeftmost(node);
    this.#touched.add(node);
    this.#balanceRed(node);
    this.#recompute();
  }

  /** Removes a node. Its own words stay as they are, as in the kernel. */
  erase(node: GuestVirtual): void {
    const left = this.#left(node);
    const right = this.#right(node);
    if (follow(this.#draft, this.#root.leftmost, POINTER) === node) {
      this.#setLeftmost(right === NULL ? this.#parent(node) : this.#first(right));
    }
    let black = this.#isBlack(node);
    let child: GuestVirtual;
    let parent: GuestVirtual;
    if (left === NULL || right === NULL) {
      child = left === NULL ? right : left;
      parent = this.#parent(node);
      this.#replace(node, child);
    } else {
      const next = this.#first(right);
      black = this.#isBlack(next);
      child = this.#right(next);
      if (next === right) parent = next;
      else {
        parent = this.#parent(next);
        this.#replace(next, child);
        this.#setRight(next, right);
        this.#setParent(right, next);
      }
      this.#replace(node, next);
      this.#setLeft(next, left);
      this.#setParent(left, next);
      this.#paint(next, this.#isBlack(node));
    }
    if (black) this.#balanceBlack(child, parent);
    this.#touched.delete(node);
    this.#recompute();
  }

  /** Recomputes the ancestors' values after words of a node changed that they depend on. */
  refresh(node: GuestVirtual): void {
    this.#touched.add(node);
    this.#recompute();
  }

  /** Repairs a red node that may have a red parent. */
  #balanceRed(start: GuestVirtual): void {
    let node = start;
    for (let height = 0; ; ) {
      this.#bound(height++);
      const parent = this.#parent(node);
      if (parent === NULL || this.#isBlack(parent)) break;
      const grand = this.#existing(this.#parent(parent));
      const isLeft = this.#left(grand) === parent;
      const uncle = isLeft ? this.#right(grand) : this.#left(grand);
      if (uncle !== NULL && !this.#isBlack(uncle)) {
        this.#paint(parent, true);
        this.#paint(uncle, true);
        this.#paint(grand, false);
        node = grand;
        continue;
      }
      let upper = parent;
      if (node === (isLeft ? this.#right(parent) : this.#left(parent))) {
        this.#rotate(parent, isLeft);
        upper = node;
      }
      this.#paint(upper, true);
      this.#paint(grand, false);
      this.#rotate(grand, !isLeft);
      break;
    }
    this.#paint(this.#top(), true);
  }

  /** Repairs paths through `start`, a child of `above`, that have one black node too few. */
  #balanceBlack(start: GuestVirtual, above: GuestVirtual): void {
    let node = start;
    let parent = above;
    for (let height = 0; parent !== NULL && (node === NULL || this.#isBlack(node)); ) {
      this.#bound(height++);
      const isLeft = this.#left(parent) === node;
      let sibling = this.#sibling(parent, isLeft);
      if (!this.#isBlack(sibling)) {
        this.#paint(sibling, true);
        this.#paint(parent, false);
        this.#rotate(parent, isLeft);
        sibling = this.#sibling(parent, isLeft);
      }
      const near = isLeft ? this.#left(sibling) : this.#right(sibling);
      const far = isLeft ? this.#right(sibling) : this.#left(sibling);
      const nearBlack = near === NULL || this.#isBlack(near);
      const farBlack = far === NULL || this.#isBlack(far);
      if (nearBlack && farBlack) {
        this.#paint(sibling, false);
        node = parent;
        parent = this.#parent(node);
        continue;
      }
      if (farBlack) {
        this.#paint(near, true);
        this.#paint(sibling, false);
        this.#rotate(sibling, !isLeft);
        sibling = this.#sibling(parent, isLeft);
      }
      this.#paint(sibling, this.#isBlack(parent));
      this.#paint(parent, true);
      this.#paint(this.#existing(isLeft ? this.#right(sibling) : this.#left(sibling)), true);
      this.#rotate(parent, isLeft);
      return;
    }
    if (node !== NULL) this.#paint(node, true);
  }

  #sibling(parent: GuestVirtual, isLeft: boolean): GuestVirtual {
    return this.#existing(isLeft ? this.#right(parent) : this.#left(parent));
  }

  /** Moves a node down to the left (or right); its other child takes its place. */
  #rotate(node: GuestVirtual, toLeft: boolean): void {
    const riser = this.#existing(toLeft ? this.#right(node) : this.#left(node));
    const inner = toLeft ? this.#left(riser) : this.#right(riser);
    if (toLeft) this.#setRight(node, inner);
    else this.#setLeft(node, inner);
    if (inner !== NULL) this.#setParent(inner, node);
    this.#replace(node, riser);
    if (toLeft) this.#setLeft(riser, node);
    else this.#setRight(riser, node);
    this.#setParent(node, riser);
  }

  /** Puts another subtree in the place of a node's subtree. */
  #replace(node: GuestVirtual, by: GuestVirtual): void {
    const parent = this.#parent(node);
    if (parent === NULL) this.#setTop(by);
    else if (this.#left(parent) === node) this.#setLeft(parent, by);
    else this.#setRight(parent, by);
    if (by !== NULL) this.#setParent(by, parent);
  }

  /** Works from the leaves up, since a node's value follows from its children's. */
  #recompute(): void {
    if (this.#augment !== null) {
      const byDepth: Set<GuestVirtual>[] = [];
      for (const node of this.#touched) {
        const way: GuestVirtual[] = [];
        for (let at = node; at !== NULL; at = this.#parent(at)) {
          this.#bound(way.length);
          way.push(at);
        }
        for (const [index, at] of way.reverse().entries()) {
          byDepth[index] ??= new Set();
          byDepth[index].add(at);
        }
      }
      for (const nodes of byDepth.reverse()) for (const node of nodes) this.#augment(node);
    }
    this.#touched.clear();
  }

  #first(top: GuestVirtual): GuestVirtual {
    let node = top;
    for (let height = 0, left = this.#left(node); left !== NULL; left = this.#left(node)) {
      this.#bound(height++);
      node = left;
    }
    return node;
  }

  #top(): GuestVirtual {
    return follow(this.#draft, this.#root.node, POINTER);
  }

  #left(node: GuestVirtual): GuestVirtual {
    return follow(this.#draft, node, this.#members.rb_left);
  }

  #right(node: GuestVirtual): GuestVirtual {
    return follow(this.#draft, node, this.#members.rb_right);
  }

  #parent(node: GuestVirtual): GuestVirtual {
    return parentOf(this.#draft, this.#members, node);
  }

  #isBlack(node: GuestVirtual): boolean {
    return isBlack(this.#draft, this.#members, node);
  }

  #setTop(node: GuestVirtual): void {
    put(this.#draft, this.#root.node, POINTER, node, `${this.#root.name}.tasks_timeline.rb_node`);
  }

  #setLeftmost(node: GuestVirtual): void {
    put(this.#draft, this.#root.leftmost, POINTER, node, `${this.#root.name}.tasks_timeline.rb_leftmost`);
  }

  #setLeft(node: GuestVirtual, child: GuestVirtual): void {
    this.#touched.add(node);
    this.#put(node, this.#members.rb_left, child, 'rb_left');
  }

  #setRight(node: GuestVirtual, child: GuestVirtual): void {
    this.#touched.add(node);
    this.#put(node, this.#members.rb_right, child, 'rb_right');
  }

  #setParent(node: GuestVirtual, parent: GuestVirtual): void {
    this.#link(node, parent, get(this.#draft, node, this.#members.__rb_parent_color) & COLOR_BITS);
  }

  #paint(node: GuestVirtual, black: boolean): void {
    this.#link(node, this.#parent(node), black ? BLACK : 0n);
  }

  #link(node: GuestVirtual, parent: GuestVirtual, color: bigint): void {
    this.#put(node, this.#members.__rb_parent_color, parent | color, '__rb_parent_color');
  }

  #put(node: GuestVirtual, field: Word, value: bigint, member: string): void {
    put(this.#draft, node, field, value, `${this.#root.name}: node ${formatAddress(node)}.${member}`);
  }

  #existing(node: GuestVirtual): GuestVirtual {
    if (node !== NULL) return node;
    throw inconsistent(`${this.#root.name}.tasks_timeline is no red-black tree`);
  }

  #bound(height: number): void {
    if (height <= MAX_HEIGHT) return;
    throw new DomschedError('walk-unbounded', `${this.#root.name}.tasks_timeline does not end`, {});
  }
}

/** Parent of a node; 0 for the root. */
export function parentOf(memory: MemoryView, members: RbMembers, node: GuestVirtual): GuestVirtual {
  return (get(memory, node, members.__rb_parent_color) & ~COLOR_BITS) as GuestVirtual;
}

export function isBlack(memory: MemoryView, members: RbMembers, node: GuestVirtual): boolean {
  return (get(memory, node, members.__rb_parent_color) & BLACK) !== 0n;
}

/**
 * The nodes of a tree in order, after these checks: links both ways, root black, no red node under a red one, equally
 * many black nodes on every path, leftmost node known.
 * @param limit most nodes that it may have
 * @throws DomschedError `guest-inconsistent`, `walk-unbounded`
 */
export function checkedNodes(
  memory: MemoryView,
  members: RbMembers,
  root: RbRoot,
  limit: number,
): GuestVirtual[] {
  const nodes: GuestVirtual[] = [];
  const wrong = (what: string) => inconsistent(`${root.name}.tasks_timeline: ${what}`);
  /** @returns number of black nodes on each path */
  const walk = (node: GuestVirtual, parent: GuestVirtual, parentBlack: boolean, height: number): number => {
    if (node === NULL) return 0;
    if (height > MAX_HEIGHT || nodes.length >= limit) {
      throw new DomschedError('walk-unbounded', `${root.name}.tasks_timeline does not end`, {});
    }
    if (parentOf(memory, members, node) !== parent)
      throw wrong(`node ${formatAddress(node)} does not link back`);
    const black = isBlack(memory, members, node);
    if (!black && !parentBlack) throw wrong(`red node ${formatAddress(node)} is under a red one`);
    const left = walk(follow(memory, node, members.rb_left), node, black, height + 1);
    nodes.push(node);
    const right = walk(follow(memory, node, members.rb_right), node, black, height + 1);
    if (left !== right) throw wrong(`node ${formatAddress(node)} has ${left} and ${right} black nodes below`);
    return left + (black ? 1 : 0);
  };
  walk(follow(memory, root.node, POINTER), NULL, false, 0);
  if (follow(memory, root.leftmost, POINTER) !== (nodes[0] ?? NULL)) throw wrong('rb_leftmost is another');
  return nodes;
}
