/* The definitions of a unit, each of them recorded once in all units. */
#include "set.h"
#include "shim.h"

static struct set wanted_names, seen;

/* Adds a name to those that scan_types(WANTED) looks for. */
EXPORT(want) int want(const char *name, uint32_t length) { return set_add(&wanted_names, hash_bytes(name, length)); }

/* Forgets what earlier scans have seen. */
EXPORT(forget_scans) void forget_scans(void) {
  free(seen.slots);
  seen = (struct set){0};
}

enum scan { WANTED, EVERY, NAMES };

/* Whether an enumeration has an enumerator of a wanted name: 1 or 0, or -1. */
static int has_wanted_enumerator(Dwarf_Die die, uint32_t offset) {
  Dwarf_Die child = NULL;
  int found = 0;
  if (first_child(die, offset, &child) != 0) {
    return -1;
  }
  while (child) {
    Dwarf_Error error = NULL;
    char *name = NULL;
    int result = name_of(child, &name, &error);
    if (result == DW_DLV_ERROR) {
      fail_with(offset, error);
      return failed_at(child);
    }
    if (result == DW_DLV_OK && set_has(&wanted_names, hash_bytes(name, strlen(name)))) {
      found = 1;
    }
    if (next_sibling(&child) != 0) {
      return -1;
    }
  }
  return found;
}

static int scan_entry(Dwarf_Die die, enum scan what) {
  Dwarf_Error error = NULL;
  Dwarf_Half tag = 0;
  Dwarf_Off offset = 0;
  char *name = NULL;
  if (dwarf_tag(die, &tag, &error) != DW_DLV_OK || dwarf_dieoffset(die, &offset, &error) != DW_DLV_OK) {
    return fail_with((uint32_t)offset, error);
  }
  int is_tagged = tag == DW_TAG_structure_type || tag == DW_TAG_union_type || tag == DW_TAG_enumeration_type;
  if (!is_tagged && !(tag == DW_TAG_typedef && what == WANTED)) {
    return 0;
  }
  int result = name_of(die, &name, &error);
  if (result == DW_DLV_ERROR) {
    return fail_with((uint32_t)offset, error);
  }
  uint64_t hash = 0;
  if (result == DW_DLV_OK) {
    hash = hash_bytes(name, strlen(name));
    if (what == WANTED && !set_has(&wanted_names, hash)) {
      return 0;
    }
  } else if (what == NAMES || tag != DW_TAG_enumeration_type || !wanted_names.used) {
    return 0;
  } else {
    int found = has_wanted_enumerator(die, (uint32_t)offset);
    if (found <= 0) {
      return found;
    }
  }
  if (what == NAMES && set_has(&seen, hash)) {
    return 0;
  }
  struct record record;
  if (read_entry(die, &record, NULL) != 0) {
    return -1;
  }
  if (record.flags & (IS_DECLARATION | IS_EXTERNAL_TYPE)) {
    return 0;
  }
  if (what != NAMES) {
    uint64_t fingerprint = 0;
    if (fingerprint_of((uint32_t)offset, &fingerprint) != 0) {
      return -1;
    }
    hash = mix(hash, fingerprint);
  }
  int added = set_add(&seen, hash);
  if (added <= 0) {
    return added;
  }
  struct record *found = push();
  if (!found) {
    return fail((uint32_t)offset, "out of memory");
  }
  *found = record;
  return 0;
}

/*
 * Records the definitions at the unit's top level that no earlier scan has recorded: of the wanted names
 * (typedefs too), of every structure, union and enumeration, or one for each name; and for the first two the
 * enumerations without a tag that have an enumerator of a wanted name.
 */
EXPORT(scan_types) int scan_types(uint32_t what) {
  Dwarf_Die child = NULL;
  clear_records();
  if (!unit.root) {
    return fail(0, "no unit is open");
  }
  if (first_child(unit.root, 0, &child) != 0) {
    return -1;
  }
  while (child) {
    if (scan_entry(child, what) != 0) {
      return failed_at(child);
    }
    if (next_sibling(&child) != 0) {
      return -1;
    }
  }
  return count_records();
}
