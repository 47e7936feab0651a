#include "set.h"
#include "shim.h"

/*
 * A definition's fingerprint covers all that a layout says of it, so that the same header in two thousand units
 * crosses into JavaScript once. A type hashes in two depths: as it stands below a pointer, where a structure is
 * its name, and as it lies in a structure, where it is its members too.
 */
struct hashes {
  uint32_t key; /* offset + 1; 0: free */
  uint32_t generation;
  uint64_t value[2]; /* 0: not known */
};

static struct hashes *memo;
static uint32_t memo_capacity, memo_used, memo_generation;

enum { MAX_TYPE_DEPTH = 128 };

void forget_hashes(void) {
  memo_generation++;
  memo_used = 0;
}

static struct hashes *memo_slot(uint32_t offset) {
  if ((memo_used + 1) * 2 > memo_capacity) {
    uint32_t old_capacity = memo_capacity;
    struct hashes *old = memo;
    struct hashes *grown = calloc(old_capacity ? old_capacity * 2 : 8192, sizeof *grown);
    if (!grown) {
      return NULL;
    }
    memo = grown;
    memo_capacity = old_capacity ? old_capacity * 2 : 8192;
    memo_used = 0;
    for (uint32_t i = 0; i < old_capacity; i++) {
      if (old[i].key && old[i].generation == memo_generation) {
        *memo_slot(old[i].key - 1) = old[i];
      }
    }
    free(old);
  }
  for (uint32_t at = offset * 0x9e3779b1u >> 7;; at++) {
    struct hashes *slot = &memo[at & (memo_capacity - 1)];
    if (slot->generation != memo_generation || !slot->key) {
      memset(slot, 0, sizeof *slot);
      slot->key = offset + 1;
      slot->generation = memo_generation;
      memo_used++;
      return slot;
    }
    if (slot->key == offset + 1) {
      return slot;
    }
  }
}

static int hash_entry(uint32_t offset, int deep, int depth, uint64_t *hash);

static uint64_t hash_name(const struct record *record) {
  return hash_bytes((const char *)(uintptr_t)record->name, record->name_length);
}

/* Mixes in the type that `record` refers to. */
static int hash_type(const struct record *record, int deep, int depth, uint64_t *hash) {
  uint64_t type = 1;
  if (record->flags & (TYPE_IN_SECTION | TYPE_IN_ALTERNATE | TYPE_IS_SIGNATURE)) {
    type = record->type;
  } else if (record->flags & HAS_TYPE && hash_entry((uint32_t)record->type, deep, depth + 1, &type) != 0) {
    return -1;
  }
  *hash = mix(*hash, type);
  return 0;
}

static int hash_child(const struct record *child, int deep, int depth, uint64_t *hash) {
  uint64_t value = mix(child->tag, hash_name(child));
  value = mix(value, child->flags);
  value = mix(mix(value, child->location), child->data_bit_offset);
  value = mix(mix(value, child->bit_offset), child->bit_size);
  value = mix(mix(value, child->value), child->count);
  *hash = mix(*hash, mix(value, child->byte_size));
  return hash_type(child, deep, depth, hash);
}

static int hash_children(Dwarf_Die die, uint32_t offset, int deep, int depth, uint64_t *hash) {
  Dwarf_Die child = NULL;
  if (first_child(die, offset, &child) != 0) {
    return -1;
  }
  while (child) {
    struct record record;
    if (read_entry(child, &record, NULL) != 0) {
      return failed_at(child);
    }
    /* Types defined inside others stand for themselves. */
    if ((record.tag == DW_TAG_member || record.tag == DW_TAG_enumerator || record.tag == DW_TAG_subrange_type ||
         record.tag == DW_TAG_formal_parameter || record.tag == DW_TAG_unspecified_parameters) &&
        hash_child(&record, deep, depth, hash) != 0) {
      return failed_at(child);
    }
    if (next_sibling(&child) != 0) {
      return -1;
    }
  }
  return 0;
}

/*
 * The hash of the type at `offset`. C's types have no cycle but through a pointer to a structure, where the hash
 * goes no deeper; whatever has one all the same gets a hash without meaning here and an error from who reads it.
 */
static int hash_entry(uint32_t offset, int deep, int depth, uint64_t *hash) {
  struct hashes *slot = memo_slot(offset);
  if (!slot) {
    return fail(offset, "out of memory");
  }
  if (slot->value[deep] || depth > MAX_TYPE_DEPTH) {
    *hash = slot->value[deep];
    return 0;
  }
  slot->value[deep] = 1;
  Dwarf_Die die = NULL;
  struct record record;
  if (opened_at(offset, &die) != 0) {
    return -1;
  }
  if (read_entry(die, &record, NULL) != 0) {
    return failed_at(die);
  }
  uint64_t value = mix(mix(record.tag, hash_name(&record)), record.flags & IS_PROTOTYPED);
  value = record.flags & IS_EXTERNAL_TYPE ? mix(value, record.type) : value;
  int result = 0;
  switch (record.tag) {
  case DW_TAG_structure_type:
  case DW_TAG_union_type:
  case DW_TAG_class_type:
  case DW_TAG_enumeration_type:
    if (deep) {
      value = mix(mix(value, record.byte_size), record.flags);
      result = hash_type(&record, 0, depth, &value) != 0 || hash_children(die, offset, 1, depth, &value) != 0;
    }
    break;
  case DW_TAG_pointer_type:
    result = hash_type(&record, 0, depth, &value);
    break;
  case DW_TAG_subroutine_type:
    result = hash_type(&record, 0, depth, &value) != 0 || hash_children(die, offset, 0, depth, &value) != 0;
    break;
  case DW_TAG_array_type:
    result = hash_type(&record, deep, depth, &value) != 0 || hash_children(die, offset, 0, depth, &value) != 0;
    break;
  default:
    value = mix(mix(value, record.byte_size), record.encoding);
    result = hash_type(&record, deep, depth, &value);
  }
  dwarf_dealloc_die(die);
  if (result != 0) {
    return -1;
  }
  *hash = value | (value < 2) << 1;
  slot = memo_slot(offset);
  if (slot) {
    slot->value[deep] = *hash;
  }
  return 0;
}

int fingerprint_of(uint32_t offset, uint64_t *hash) { return hash_entry(offset, 1, 0, hash); }
