/* Opens one unit at a time. */
#include "shim.h"

struct open_unit unit;
int is_split;
static uint32_t root_end;

EXPORT(set_split) void set_split(int split) { is_split = split; }

EXPORT(close_unit) void close_unit(void) {
  if (unit.root) {
    dwarf_dealloc_die(unit.root);
    unit.root = NULL;
  }
  if (unit.debug) {
    dwarf_object_finish(unit.debug);
    unit.debug = NULL;
  }
}

/*
 * Opens the unit whose bytes are the whole of section `which` (INFO or TYPES) and records its root entry.
 * No more than the root entry is looked at.
 */
EXPORT(open_unit) int open_unit(uint32_t which) {
  Dwarf_Error error = NULL;
  Dwarf_Unsigned header_length, type_offset, next;
  Dwarf_Off abbrev_offset;
  Dwarf_Half extension_size, unit_type;
  Dwarf_Sig8 signature;
  close_unit();
  dwarf_set_de_alloc_flag(0);
  unit.is_info = which == INFO;
  if (dwarf_object_init_b(&section_access, NULL, NULL, DW_GROUPNUMBER_ANY, &unit.debug, &error) != DW_DLV_OK) {
    int result = fail_with(0, error);
    unit.debug = NULL;
    return result;
  }
  int result = dwarf_next_cu_header_e(unit.debug, unit.is_info, &unit.root, &header_length, &unit.version, &abbrev_offset,
                                      &unit.address_size, &unit.offset_size, &extension_size, &signature, &type_offset,
                                      &next, &unit_type, &error);
  if (result != DW_DLV_OK) {
    return result == DW_DLV_ERROR ? fail_with(0, error) : fail(0, "the unit is empty");
  }
  clear_records();
  begin_walk();
  forget_hashes();
  root_end = 0;
  struct record *record = push();
  return record && read_root(unit.root, record, &root_end) == 0 ? 1 : -1;
}

/* Where the root entry's last attribute begins: with less of the unit than that in memory, it is not to be trusted. */
EXPORT(root_extent) uint32_t root_extent(void) { return root_end; }
