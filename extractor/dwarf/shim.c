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
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dwarf.h"
#include "libdwarf.h"

#define EXPORT(name) __attribute__((export_name(#name)))

enum section { INFO, TYPES, ABBREV, STR, LINE_STR, STR_OFFSETS, SECTION_COUNT };

static const char *const section_names[SECTION_COUNT] = {
    ".debug_info", ".debug_types", ".debug_abbrev", ".debug_str", ".debug_line_str", ".debug_str_offsets",
};

static struct {
  Dwarf_Small *data;
  uint32_t size;
} sections[SECTION_COUNT];

/* Bits of record.flags; extractor/dwarf/record.ts has the same. */
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

static struct record *list;
static uint32_t list_length, list_capacity;

static Dwarf_Debug unit;
static Dwarf_Die root;
static int is_info;
static Dwarf_Half unit_version, unit_offset_size, unit_address_size;

static char message[256];
static uint32_t message_offset;

/* ---- errors ---- */

static int fail(uint32_t offset, const char *text) {
  size_t length = strlen(text);
  if (length >= sizeof message) {
    length = sizeof message - 1;
  }
  memcpy(message, text, length);
  message[length] = 0;
  message_offset = offset;
  return -1;
}

static int fail_with(uint32_t offset, Dwarf_Error error) {
  int result = fail(offset, error ? dwarf_errmsg(error) : "libdwarf gave no reason");
  if (error) {
    dwarf_dealloc_error(unit, error);
  }
  return result;
}

EXPORT(error_message) const char *error_message(void) { return message; }
EXPORT(error_offset) uint32_t error_offset(void) { return message_offset; }

/* ---- memory and sections ---- */

EXPORT(allocate) void *allocate(uint32_t size) { return malloc(size); }
EXPORT(release) void release(void *memory) { free(memory); }

EXPORT(set_section) void set_section(uint32_t index, Dwarf_Small *data, uint32_t size) {
  if (index < SECTION_COUNT) {
    sections[index].data = data;
    sections[index].size = size;
  }
}

/* libdwarf's convention: section 0 is the empty one of ELF. */
static int get_section_info(void *object, Dwarf_Unsigned index, Dwarf_Obj_Access_Section_a *info, int *error) {
  memset(info, 0, sizeof *info);
  info->as_name = "";
  if (index > 0 && index <= SECTION_COUNT) {
    info->as_name = section_names[index - 1];
    info->as_type = 1; /* SHT_PROGBITS */
    info->as_size = sections[index - 1].size;
    info->as_addralign = 1;
  }
  return DW_DLV_OK;
}

static Dwarf_Small get_byte_order(void *object) { return DW_END_little; }
static Dwarf_Small get_length_size(void *object) { return 4; }
static Dwarf_Small get_pointer_size(void *object) { return 8; }
static Dwarf_Unsigned get_section_count(void *object) { return SECTION_COUNT + 1; }

static Dwarf_Unsigned get_filesize(void *object) {
  Dwarf_Unsigned total = 0;
  for (int i = 0; i < SECTION_COUNT; i++) {
    total += sections[i].size;
  }
  return total;
}

static int load_section(void *object, Dwarf_Unsigned index, Dwarf_Small **data, int *error) {
  if (index == 0 || index > SECTION_COUNT || !sections[index - 1].size) {
    return DW_DLV_NO_ENTRY;
  }
  *data = sections[index - 1].data;
  return DW_DLV_OK;
}

static const Dwarf_Obj_Access_Methods_a methods = {
    get_section_info, get_byte_order,    get_length_size, get_pointer_size,
    get_filesize,     get_section_count, load_section,    NULL, /* an executable's values are final */
};
static Dwarf_Obj_Access_Interface_a object = {NULL, &methods};

/* ---- records ---- */

EXPORT(records) struct record *records(void) { return list; }

static struct record *push(void) {
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

static uint64_t little_endian(const uint8_t *bytes, uint32_t size) {
  uint64_t value = 0;
  for (uint32_t i = size; i-- > 0;) {
    value = value << 8 | bytes[i];
  }
  return value;
}

static int is_block(Dwarf_Half form) {
  return form == DW_FORM_block1 || form == DW_FORM_block2 || form == DW_FORM_block4 || form == DW_FORM_block ||
         form == DW_FORM_exprloc;
}

/*
 * The value of a constant attribute. DW_FORM_dataN says nothing of the sign, so it reads as unsigned; sdata and
 * implicit_const are signed. DW_DLV_NO_ENTRY: not a constant.
 */
static int constant(Dwarf_Attribute attribute, Dwarf_Half form, uint64_t *value, int *is_signed,
                    Dwarf_Error *error) {
  Dwarf_Signed with_sign = 0;
  Dwarf_Unsigned without = 0;
  int result;
  switch (form) {
  case DW_FORM_sdata:
  case DW_FORM_implicit_const:
    result = dwarf_formsdata(attribute, &with_sign, error);
    *value = (uint64_t)with_sign;
    *is_signed = 1;
    return result;
  case DW_FORM_data1:
  case DW_FORM_data2:
  case DW_FORM_data4:
  case DW_FORM_data8:
  case DW_FORM_udata:
    result = dwarf_formudata(attribute, &without, error);
    *value = without;
    *is_signed = 0;
    return result;
  default:
    return DW_DLV_NO_ENTRY;
  }
}

/*
 * A member's location: a constant, or before DWARF 3 a block with one of the operations that add a constant to
 * the record's address. Location lists and computed locations do not occur in C.
 */
static int read_location(struct record *record, Dwarf_Attribute attribute, Dwarf_Half form, Dwarf_Error *error) {
  int is_signed = 0, result;
  if (!is_block(form)) {
    result = constant(attribute, form, &record->location, &is_signed, error);
    record->flags |= result == DW_DLV_OK ? HAS_LOCATION : BAD_LOCATION;
    return result == DW_DLV_ERROR ? -1 : 0;
  }
  const uint8_t *bytes;
  uint64_t length;
  Dwarf_Block *block = NULL;
  if (form == DW_FORM_exprloc) {
    Dwarf_Ptr start = NULL;
    Dwarf_Unsigned size = 0;
    if (dwarf_formexprloc(attribute, &size, &start, error) != DW_DLV_OK) {
      return -1;
    }
    bytes = start;
    length = size;
  } else {
    if (dwarf_formblock(attribute, &block, error) != DW_DLV_OK) {
      return -1;
    }
    bytes = block->bl_data;
    length = block->bl_len;
  }
  int known = 0;
  if (length > 1 && (bytes[0] == DW_OP_plus_uconst || bytes[0] == DW_OP_constu)) {
    uint64_t value = 0;
    uint32_t at = 1, shift = 0;
    while (at < length && shift < 64) {
      uint8_t byte = bytes[at++];
      value |= (uint64_t)(byte & 0x7f) << shift;
      shift += 7;
      if (!(byte & 0x80)) {
        known = at == length || (at + 1 == length && bytes[0] == DW_OP_constu && bytes[at] == DW_OP_plus);
        break;
      }
    }
    record->location = value;
  }
  record->flags |= known ? HAS_LOCATION : BAD_LOCATION;
  if (block) {
    dwarf_dealloc(unit, block, DW_DLA_BLOCK);
  }
  return 0;
}

static int read_reference(struct record *record, Dwarf_Die die, Dwarf_Attribute attribute, Dwarf_Half form,
                          uint32_t flag, Dwarf_Error *error) {
  if (form == DW_FORM_ref_sig8) {
    Dwarf_Sig8 signature;
    if (dwarf_formsig8(attribute, &signature, error) != DW_DLV_OK) {
      return -1;
    }
    record->type = little_endian((const uint8_t *)signature.signature, 8);
    record->flags |= flag | TYPE_IS_SIGNATURE;
    return 0;
  }
  if (form == DW_FORM_ref_addr) {
    /* libdwarf would refuse it: the section it knows ends with this unit. */
    Dwarf_Off at = 0;
    if (dwarf_attr_offset(die, attribute, &at, error) != DW_DLV_OK) {
      return -1;
    }
    uint32_t width = unit_version == 2 ? unit_address_size : unit_offset_size;
    uint32_t size = sections[is_info ? INFO : TYPES].size;
    if (width > 8 || at > size || width > size - at) {
      return fail((uint32_t)at, "a reference lies outside its unit");
    }
    record->type = little_endian(sections[is_info ? INFO : TYPES].data + at, width);
    record->flags |= flag | TYPE_IN_SECTION;
    return 0;
  }
  Dwarf_Off offset = 0;
  Dwarf_Bool in_info = 0;
  if (dwarf_formref(attribute, &offset, &in_info, error) != DW_DLV_OK) {
    return -1;
  }
  record->type = offset;
  record->flags |= flag;
  return 0;
}

static int read_attribute(struct record *record, Dwarf_Die die, Dwarf_Attribute attribute, Dwarf_Error *error) {
  Dwarf_Half name = 0, form = 0;
  if (dwarf_whatattr(attribute, &name, error) != DW_DLV_OK || dwarf_whatform(attribute, &form, error) != DW_DLV_OK) {
    return -1;
  }
  uint64_t value = 0;
  int is_signed = 0;
  switch (name) {
  case DW_AT_name: {
    char *text = NULL;
    if (dwarf_formstring(attribute, &text, error) != DW_DLV_OK) {
      return -1;
    }
    record->name = (uint32_t)(uintptr_t)text;
    record->name_length = strlen(text);
    return 0;
  }
  case DW_AT_type:
    return read_reference(record, die, attribute, form, HAS_TYPE, error);
  case DW_AT_signature:
    return form == DW_FORM_ref_sig8 ? read_reference(record, die, attribute, form, IS_EXTERNAL_TYPE, error) : 0;
  case DW_AT_data_member_location:
    return read_location(record, attribute, form, error);
  case DW_AT_declaration: {
    Dwarf_Bool set = 0;
    if (dwarf_formflag(attribute, &set, error) != DW_DLV_OK) {
      return -1;
    }
    record->flags |= set ? IS_DECLARATION : 0;
    return 0;
  }
  case DW_AT_byte_size:
  case DW_AT_encoding:
  case DW_AT_data_bit_offset:
  case DW_AT_bit_offset:
  case DW_AT_bit_size:
  case DW_AT_const_value:
  case DW_AT_upper_bound:
  case DW_AT_count:
    break;
  default:
    return 0;
  }
  switch (constant(attribute, form, &value, &is_signed, error)) {
  case DW_DLV_ERROR:
    return -1;
  case DW_DLV_NO_ENTRY: /* a size that only the running program knows */
    return 0;
  }
  switch (name) {
  case DW_AT_byte_size:
    record->byte_size = value;
    record->flags |= HAS_BYTE_SIZE;
    break;
  case DW_AT_encoding:
    record->encoding = (uint32_t)value;
    break;
  case DW_AT_data_bit_offset:
    record->data_bit_offset = value;
    record->flags |= HAS_DATA_BIT_OFFSET;
    break;
  case DW_AT_bit_offset:
    record->bit_offset = value;
    record->flags |= HAS_BIT_OFFSET;
    break;
  case DW_AT_bit_size:
    record->bit_size = value;
    record->flags |= HAS_BIT_SIZE;
    break;
  case DW_AT_const_value:
    record->value = value;
    record->flags |= HAS_VALUE | (is_signed ? VALUE_IS_SIGNED : 0);
    break;
  case DW_AT_upper_bound:
    /* An array of no elements ends at -1, which compilers also write as four or eight bytes of ones. */
    record->count = form == DW_FORM_data4 ? (uint32_t)(value + 1) : value + 1;
    record->flags |= HAS_COUNT;
    break;
  case DW_AT_count:
    record->count = value;
    record->flags |= HAS_COUNT;
    break;
  }
  return 0;
}

/* Appends the record of one entry. */
static int read_entry(Dwarf_Die die) {
  Dwarf_Error error = NULL;
  Dwarf_Half tag = 0, children = 0;
  Dwarf_Off offset = 0;
  Dwarf_Attribute *attributes = NULL;
  Dwarf_Signed count = 0;
  if (dwarf_dieoffset(die, &offset, &error) != DW_DLV_OK || dwarf_tag(die, &tag, &error) != DW_DLV_OK) {
    return fail_with((uint32_t)offset, error);
  }
  struct record *record = push();
  if (!record) {
    return fail((uint32_t)offset, "out of memory");
  }
  record->offset = (uint32_t)offset;
  record->tag = tag;
  if (dwarf_die_abbrev_children_flag(die, &children) == DW_DLV_OK && children) {
    record->flags |= HAS_CHILDREN;
  }
  int result = dwarf_attrlist(die, &attributes, &count, &error);
  if (result == DW_DLV_ERROR) {
    return fail_with((uint32_t)offset, error);
  }
  int failed = 0;
  for (Dwarf_Signed i = 0; i < count; i++) {
    if (!failed && read_attribute(record, die, attributes[i], &error) != 0) {
      failed = 1;
    }
    dwarf_dealloc_attribute(attributes[i]);
  }
  if (attributes) {
    dwarf_dealloc(unit, attributes, DW_DLA_LIST);
  }
  if (failed) {
    return error ? fail_with((uint32_t)offset, error) : fail((uint32_t)offset, "an attribute has an unexpected form");
  }
  return 0;
}

/* ---- units ---- */

EXPORT(close_unit) void close_unit(void) {
  if (root) {
    dwarf_dealloc_die(root);
    root = NULL;
  }
  if (unit) {
    dwarf_object_finish(unit);
    unit = NULL;
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
  is_info = which == INFO;
  if (dwarf_object_init_b(&object, NULL, NULL, DW_GROUPNUMBER_ANY, &unit, &error) != DW_DLV_OK) {
    int result = fail_with(0, error);
    unit = NULL;
    return result;
  }
  int result = dwarf_next_cu_header_e(unit, is_info, &root, &header_length, &unit_version, &abbrev_offset,
                                      &unit_address_size, &unit_offset_size, &extension_size, &signature, &type_offset,
                                      &next, &unit_type, &error);
  if (result != DW_DLV_OK) {
    return result == DW_DLV_ERROR ? fail_with(0, error) : fail(0, "the unit is empty");
  }
  list_length = 0;
  return read_entry(root) == 0 ? 1 : -1;
}

static int is_type_definition(Dwarf_Half tag) {
  return tag == DW_TAG_structure_type || tag == DW_TAG_union_type || tag == DW_TAG_enumeration_type;
}

/*
 * Appends `first`, a just read child, and its siblings; only the tagged types of C when `types_only`.
 * Each entry of a list lies behind the one before it, so the unit's end bounds the walk.
 */
static int read_siblings(Dwarf_Die first, int types_only) {
  Dwarf_Die die = first;
  for (;;) {
    Dwarf_Error error = NULL;
    Dwarf_Die next = NULL;
    Dwarf_Half tag = 0;
    int wanted = 1;
    if (types_only) {
      wanted = dwarf_tag(die, &tag, &error) == DW_DLV_OK && is_type_definition(tag);
    }
    if (wanted && read_entry(die) != 0) {
      dwarf_dealloc_die(die);
      return -1;
    }
    int result = dwarf_siblingof_c(die, &next, &error);
    Dwarf_Off offset = 0;
    if (result == DW_DLV_ERROR) {
      dwarf_dieoffset(die, &offset, NULL);
    }
    dwarf_dealloc_die(die);
    if (result == DW_DLV_ERROR) {
      return fail_with((uint32_t)offset, error);
    }
    if (result == DW_DLV_NO_ENTRY) {
      return 0;
    }
    die = next;
  }
}

/* Records the entry at `offset` and its direct children. */
EXPORT(read_tree) int read_tree(uint32_t offset) {
  Dwarf_Error error = NULL;
  Dwarf_Die die = NULL, child = NULL;
  list_length = 0;
  if (!unit || offset >= sections[is_info ? INFO : TYPES].size) {
    return fail(offset, "a reference lies outside its unit");
  }
  int result = dwarf_offdie_b(unit, offset, is_info, &die, &error);
  if (result != DW_DLV_OK) {
    return result == DW_DLV_ERROR ? fail_with(offset, error) : fail(offset, "a reference leads to no entry");
  }
  if (read_entry(die) != 0) {
    dwarf_dealloc_die(die);
    return -1;
  }
  result = list[0].flags & HAS_CHILDREN ? dwarf_child(die, &child, &error) : DW_DLV_NO_ENTRY;
  dwarf_dealloc_die(die);
  if (result == DW_DLV_ERROR) {
    return fail_with(offset, error);
  }
  if (result == DW_DLV_OK && read_siblings(child, 0) != 0) {
    return -1;
  }
  return (int)list_length;
}

/* Records every structure, union and enumeration at the unit's top level, definitions and declarations. */
EXPORT(read_types) int read_types(void) {
  Dwarf_Error error = NULL;
  Dwarf_Die child = NULL;
  list_length = 0;
  if (!root) {
    return fail(0, "no unit is open");
  }
  int result = dwarf_child(root, &child, &error);
  if (result == DW_DLV_ERROR) {
    return fail_with(0, error);
  }
  if (result == DW_DLV_OK && read_siblings(child, 1) != 0) {
    return -1;
  }
  return (int)list_length;
}
