/* From entry to entry, and the records of what was found. */
#include "shim.h"

static struct record *list;
static uint32_t list_length, list_capacity;

EXPORT(records) struct record *records(void) { return list; }

void clear_records(void) { list_length = 0; }
int count_records(void) { return (int)list_length; }

struct record *push(void) {
  if (list_length == list_capacity) {
    uint32_t capacity = list_capacity ? list_capacity * 2 : 1024;
    struct record *grown = realloc(list, capacity * sizeof *list);
    if (!grown) {
      return NULL;
    }
    list = grown;
    list_capacity = capacity;
  }
  struct record *added = &list[list_length++];
  memset(added, 0, sizeof *added);
  return added;
}

/* Entries read since the unit was opened. Types that overlap each other could make that many times its size. */
static uint32_t entries_read;

void begin_walk(void) { entries_read = 0; }

int opened_at(uint32_t offset, Dwarf_Die *die) {
  Dwarf_Error error = NULL;
  uint32_t size = unit_bytes()->size;
  if (!unit.debug || offset >= size) {
    return fail(offset, "a reference lies outside its unit");
  }
  if (entries_read++ > 8 * size) {
    return fail(offset, "types overlap each other");
  }
  int result = dwarf_offdie_b(unit.debug, offset, unit.is_info, die, &error);
  if (result != DW_DLV_OK) {
    return result == DW_DLV_ERROR ? fail_with(offset, error) : fail(offset, "a reference leads to no entry");
  }
  return 0;
}

/* The first child of `die`, or NULL in `child`. */
int first_child(Dwarf_Die die, uint32_t offset, Dwarf_Die *child) {
  Dwarf_Error error = NULL;
  *child = NULL;
  return dwarf_child(die, child, &error) == DW_DLV_ERROR ? fail_with(offset, error) : 0;
}

/*
 * Frees *die and puts its next sibling there, or NULL behind the last. Each entry of a list lies behind the one
 * before it, so the unit's end bounds the walk.
 */
int next_sibling(Dwarf_Die *die) {
  Dwarf_Error error = NULL;
  Dwarf_Die next = NULL;
  Dwarf_Off offset = 0;
  int result = dwarf_siblingof_c(*die, &next, &error);
  if (result == DW_DLV_ERROR) {
    dwarf_dieoffset(*die, &offset, NULL);
  }
  dwarf_dealloc_die(*die);
  *die = result == DW_DLV_OK ? next : NULL;
  entries_read++;
  return result == DW_DLV_ERROR ? fail_with((uint32_t)offset, error) : 0;
}

int failed_at(Dwarf_Die die) {
  dwarf_dealloc_die(die);
  return -1;
}

/* Records the entry at `offset` and its direct children. */
EXPORT(read_tree) int read_tree(uint32_t offset) {
  Dwarf_Die die = NULL, child = NULL;
  clear_records();
  struct record *record = push();
  if (!record) {
    return fail(offset, "out of memory");
  }
  if (opened_at(offset, &die) != 0) {
    return -1;
  }
  if (read_entry(die, record, NULL) != 0 ||
      (record->flags & HAS_CHILDREN && first_child(die, offset, &child) != 0)) {
    return failed_at(die);
  }
  dwarf_dealloc_die(die);
  while (child) {
    record = push();
    if (!record || read_entry(child, record, NULL) != 0) {
      return failed_at(child);
    }
    if (next_sibling(&child) != 0) {
      return -1;
    }
  }
  return (int)list_length;
}
