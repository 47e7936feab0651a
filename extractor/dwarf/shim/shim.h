/*
 * What the dwarf engine asks of libdwarf, as few and coarse calls, since each one crosses from JavaScript into
 * WebAssembly.
 *
 * The caller puts section contents into this module's memory. One unit is open at a time: libdwarf is given a
 * .debug_info (or .debug_types) section that consists of this unit alone, so that the other units of the file need
 * never be read. All offsets here are therefore relative to the unit's header, except those that carry
 * TYPE_IN_SECTION.
 *
 * Results are arrays of `struct record` at records(); they and the strings they point to are good until the
 * next call. Functions return a count, or -1 with error_message() and error_offset().
 */
#ifndef SHIM_H
#define SHIM_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dwarf.h"
#include "libdwarf.h"

#define EXPORT(name) __attribute__((export_name(#name)))

/* ---- sections.c: the bytes that libdwarf reads ---- */

/*
 * The last one is not libdwarf's: it is the .debug_str of the alternate file, in which dwz puts what several files
 * share.
 */
enum section { INFO, TYPES, ABBREV, STR, LINE_STR, STR_OFFSETS, ADDR, SECTION_COUNT, ALTERNATE_STR = SECTION_COUNT, ALL_SECTIONS };

struct section_bytes {
  Dwarf_Small *data;
  uint32_t size;
};
extern struct section_bytes sections[ALL_SECTIONS];
/* libdwarf's way to them. */
extern Dwarf_Obj_Access_Interface_a section_access;

/* ---- error.c ---- */

/* Both return -1. */
int fail(uint32_t offset, const char *text);
int fail_with(uint32_t offset, Dwarf_Error error);

/* ---- unit.c: the open unit ---- */

extern struct open_unit {
  Dwarf_Debug debug; /* NULL: none is open */
  Dwarf_Die root;
  int is_info; /* it lies in .debug_info, not in .debug_types */
  Dwarf_Half version, offset_size, address_size;
} unit;

/* The section that it lies in. */
static inline const struct section_bytes *unit_bytes(void) { return &sections[unit.is_info ? INFO : TYPES]; }

/* Split DWARF: the open unit is of a .dwo file. */
extern int is_split;

/* ---- text.c ---- */

uint64_t little_endian(const uint8_t *bytes, uint32_t size);
int text_of(Dwarf_Die die, Dwarf_Attribute attribute, Dwarf_Half form, char **text, Dwarf_Error *error);
int name_of(Dwarf_Die die, char **name, Dwarf_Error *error);

/* ---- entry.c: an entry as a record ---- */

/* Bits of record.flags; record.ts has the same. */
enum {
  HAS_CHILDREN = 1 << 0,
  IS_DECLARATION = 1 << 1,
  HAS_BYTE_SIZE = 1 << 2,
  HAS_TYPE = 1 << 3,
  TYPE_IN_SECTION = 1 << 4,   /* DW_FORM_ref_addr: an offset in the whole section */
  TYPE_IS_SIGNATURE = 1 << 5, /* DW_FORM_ref_sig8: the signature of a type unit */
  HAS_LOCATION = 1 << 6,
  HAS_DATA_BIT_OFFSET = 1 << 7,
  HAS_BIT_OFFSET = 1 << 8,
  HAS_BIT_SIZE = 1 << 9,
  HAS_VALUE = 1 << 10,
  HAS_COUNT = 1 << 11,
  IS_EXTERNAL_TYPE = 1 << 12, /* DW_AT_signature: `type` names the type unit that defines this declaration */
  BAD_LOCATION = 1 << 13,     /* a member location that is no constant */
  VALUE_IS_SIGNED = 1 << 14,
  IS_PROTOTYPED = 1 << 15,
  TYPE_IN_ALTERNATE = 1 << 16, /* DW_FORM_GNU_ref_alt: an offset in the alternate file's section */
};

/* One debugging information entry, as far as C types need it. */
struct record {
  uint32_t offset;
  uint32_t tag;
  uint32_t flags;
  uint32_t encoding;
  uint32_t name; /* 0: none */
  uint32_t name_length;
  uint64_t byte_size;
  uint64_t type;
  uint64_t location; /* bytes from the start of the record */
  uint64_t data_bit_offset;
  uint64_t bit_offset; /* the big-endian-style one of DWARF 2 and 3 */
  uint64_t bit_size;
  uint64_t value;
  uint64_t count; /* elements of an array's dimension */
};

/* Fills in the record of an entry; `end`, unless NULL, gets the offset of its last attribute. */
int read_entry(Dwarf_Die die, struct record *record, uint32_t *end);
/* Reads the root entry of a unit; a skeleton's tells where its .dwo file is. */
int read_root(Dwarf_Die die, struct record *record, uint32_t *end);

/* ---- walk.c: records of the last call, and the way from entry to entry ---- */

void clear_records(void);
/* A record of zeros behind the others, or NULL. */
struct record *push(void);
int count_records(void);

/* A unit was opened: nothing of it has been read. */
void begin_walk(void);
int opened_at(uint32_t offset, Dwarf_Die *die);
/* The first child of `die`, or NULL in `child`. */
int first_child(Dwarf_Die die, uint32_t offset, Dwarf_Die *child);
/* Frees *die and puts its next sibling there, or NULL behind the last. */
int next_sibling(Dwarf_Die *die);
/* Frees it; returns -1. */
int failed_at(Dwarf_Die die);

/* ---- fingerprint.c ---- */

/* A unit was opened: what is known of the types of the one before is forgotten. */
void forget_hashes(void);
/* The fingerprint of the definition at `offset`. */
int fingerprint_of(uint32_t offset, uint64_t *hash);

#endif
