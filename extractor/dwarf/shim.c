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

/* The last one is not libdwarf's: the .debug_str of the alternate file, which dwz shares between several. */
enum section { INFO, TYPES, ABBREV, STR, LINE_STR, STR_OFFSETS, ADDR, SECTION_COUNT, ALTERNATE_STR = SECTION_COUNT, ALL_SECTIONS };

static const char *const section_names[SECTION_COUNT] = {
    ".debug_info", ".debug_types", ".debug_abbrev", ".debug_str", ".debug_line_str",
    ".debug_str_offsets", ".debug_addr",
};

static struct {
  Dwarf_Small *data;
  uint32_t size;
} sections[ALL_SECTIONS];

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

static struct record *list;
static uint32_t list_length, list_capacity;

static Dwarf_Debug unit;
static Dwarf_Die root;
static int is_info;
static Dwarf_Half unit_version, unit_offset_size, unit_address_size;
static uint32_t root_end;

/* Split DWARF: whether the open unit is of a .dwo file; of a skeleton, where that is. */
static int is_split, is_root;
static char *split_file, *split_folder;

static uint32_t crossings; /* references that may lead to another unit */

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
  if (index < ALL_SECTIONS) {
    sections[index].data = data;
    sections[index].size = size;
  }
}

EXPORT(set_split) void set_split(int split) { is_split = split; }
EXPORT(split_name) const char *split_name(void) { return split_file; }
EXPORT(split_directory) const char *split_directory(void) { return split_folder; }

/* libdwarf's convention: section 0 is the empty one of ELF. It refuses a section of its own names without bytes. */
static int get_section_info(void *object, Dwarf_Unsigned index, Dwarf_Obj_Access_Section_a *info, int *error) {
  memset(info, 0, sizeof *info);
  info->as_name = "";
  if (index > 0 && index <= SECTION_COUNT && sections[index - 1].size) {
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

static uint32_t index_width(Dwarf_Half form) {
  return form == DW_FORM_strx1 ? 1 : form == DW_FORM_strx2 ? 2 : form == DW_FORM_strx3 ? 3 : form == DW_FORM_strx4 ? 4 : 0;
}

/*
 * The string of an attribute. libdwarf knows neither the alternate file's nor where the offsets of a .dwo file begin:
 * at the first one, behind a header that DWARF 4 does not have (DWARF 5, section 7.26).
 */
static int text_of(Dwarf_Die die, Dwarf_Attribute attribute, Dwarf_Half form, char **text, Dwarf_Error *error) {
  int is_alternate = form == DW_FORM_GNU_strp_alt || form == DW_FORM_strp_sup;
  uint32_t width = is_alternate ? unit_offset_size : index_width(form);
  if (!is_alternate && !(is_split && (width || form == DW_FORM_strx || form == DW_FORM_GNU_str_index))) {
    return dwarf_formstring(attribute, text, error);
  }
  Dwarf_Off at = 0;
  if (dwarf_attr_offset(die, attribute, &at, error) != DW_DLV_OK) {
    return DW_DLV_ERROR;
  }
  const uint8_t *bytes = sections[is_info ? INFO : TYPES].data;
  uint32_t size = sections[is_info ? INFO : TYPES].size;
  uint64_t value = 0;
  if (at > size || width > size - at) {
    return DW_DLV_ERROR;
  }
  if (width) {
    value = little_endian(bytes + at, width);
  } else {
    for (uint32_t shift = 0; at < size && shift < 35; shift += 7) {
      uint8_t byte = bytes[at++];
      value |= (uint64_t)(byte & 0x7f) << shift;
      if (!(byte & 0x80)) {
        break;
      }
    }
  }
  uint32_t strings = is_alternate ? ALTERNATE_STR : STR;
  if (!is_alternate) {
    uint64_t entry = (unit_version < 5 ? 0 : unit_offset_size == 8 ? 16 : 8) + value * unit_offset_size;
    if (entry + unit_offset_size > sections[STR_OFFSETS].size) {
      return DW_DLV_ERROR;
    }
    value = little_endian(sections[STR_OFFSETS].data + entry, unit_offset_size);
  }
  if (value >= sections[strings].size || !memchr(sections[strings].data + value, 0, sections[strings].size - value)) {
    return DW_DLV_ERROR;
  }
  *text = (char *)sections[strings].data + value;
  return DW_DLV_OK;
}

/* The name of an entry, as dwarf_diename() gives it. */
static int name_of(Dwarf_Die die, char **name, Dwarf_Error *error) {
  if (!is_split && !sections[ALTERNATE_STR].size) {
    return dwarf_diename(die, name, error);
  }
  Dwarf_Attribute attribute = NULL;
  Dwarf_Half form = 0;
  int result = dwarf_attr(die, DW_AT_name, &attribute, error);
  if (result != DW_DLV_OK) {
    return result;
  }
  result = dwarf_whatform(attribute, &form, error);
  if (result == DW_DLV_OK) {
    result = text_of(die, attribute, form, name, error);
  }
  dwarf_dealloc_attribute(attribute);
  return result;
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
  int is_alternate = form == DW_FORM_GNU_ref_alt || form == DW_FORM_ref_sup4 || form == DW_FORM_ref_sup8;
  if (form == DW_FORM_ref_addr || is_alternate) {
    /* libdwarf would refuse it: the section it knows ends with this unit. */
    Dwarf_Off at = 0;
    if (dwarf_attr_offset(die, attribute, &at, error) != DW_DLV_OK) {
      return -1;
    }
    uint32_t width = form == DW_FORM_ref_sup4 ? 4
                     : form == DW_FORM_ref_sup8 ? 8
                     : unit_version == 2 && !is_alternate ? unit_address_size
                                                          : unit_offset_size;
    uint32_t size = sections[is_info ? INFO : TYPES].size;
    if (width > 8 || at > size || width > size - at) {
      return fail((uint32_t)at, "a reference lies outside its unit");
    }
    record->type = little_endian(sections[is_info ? INFO : TYPES].data + at, width);
    record->flags |= flag | (is_alternate ? TYPE_IN_ALTERNATE : TYPE_IN_SECTION);
    crossings++;
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
    if (text_of(die, attribute, form, &text, error) != DW_DLV_OK) {
      return -1;
    }
    record->name = (uint32_t)(uintptr_t)text;
    record->name_length = strlen(text);
    return 0;
  }
  case DW_AT_dwo_name:
  case DW_AT_GNU_dwo_name:
  case DW_AT_comp_dir:
    return !is_root || text_of(die, attribute, form, name == DW_AT_comp_dir ? &split_folder : &split_file, error) ==
                           DW_DLV_OK
               ? 0
               : -1;
  case DW_AT_type:
    return read_reference(record, die, attribute, form, HAS_TYPE, error);
  case DW_AT_signature:
    return form == DW_FORM_ref_sig8 ? read_reference(record, die, attribute, form, IS_EXTERNAL_TYPE, error) : 0;
  case DW_AT_data_member_location:
    return read_location(record, attribute, form, error);
  case DW_AT_declaration:
  case DW_AT_prototyped: {
    Dwarf_Bool set = 0;
    if (dwarf_formflag(attribute, &set, error) != DW_DLV_OK) {
      return -1;
    }
    record->flags |= !set ? 0 : name == DW_AT_declaration ? IS_DECLARATION : IS_PROTOTYPED;
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

/* Fills in the record of one entry; `end` gets the offset of its last attribute. */
static int read_entry(Dwarf_Die die, struct record *record, uint32_t *end) {
  Dwarf_Error error = NULL;
  Dwarf_Half tag = 0, children = 0;
  Dwarf_Off offset = 0;
  Dwarf_Attribute *attributes = NULL;
  Dwarf_Signed count = 0;
  memset(record, 0, sizeof *record);
  if (dwarf_dieoffset(die, &offset, &error) != DW_DLV_OK || dwarf_tag(die, &tag, &error) != DW_DLV_OK) {
    return fail_with((uint32_t)offset, error);
  }
  record->offset = (uint32_t)offset;
  record->tag = tag;
  if (dwarf_die_abbrev_children_flag(die, &children) == DW_DLV_OK && children) {
    record->flags |= HAS_CHILDREN;
  }
  if (dwarf_attrlist(die, &attributes, &count, &error) == DW_DLV_ERROR) {
    return fail_with((uint32_t)offset, error);
  }
  int failed = 0;
  for (Dwarf_Signed i = 0; i < count; i++) {
    if (!failed && read_attribute(record, die, attributes[i], &error) != 0) {
      failed = 1;
    }
    Dwarf_Off at = 0;
    if (end && dwarf_attr_offset(die, attributes[i], &at, NULL) == DW_DLV_OK && at > *end) {
      *end = (uint32_t)at;
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

/* ---- walking ---- */

/* Entries read since the unit was opened. Types that overlap each other could make that many times its size. */
static uint32_t entries_read;

static int opened_at(uint32_t offset, Dwarf_Die *die) {
  Dwarf_Error error = NULL;
  uint32_t size = sections[is_info ? INFO : TYPES].size;
  if (!unit || offset >= size) {
    return fail(offset, "a reference lies outside its unit");
  }
  if (entries_read++ > 8 * size) {
    return fail(offset, "types overlap each other");
  }
  int result = dwarf_offdie_b(unit, offset, is_info, die, &error);
  if (result != DW_DLV_OK) {
    return result == DW_DLV_ERROR ? fail_with(offset, error) : fail(offset, "a reference leads to no entry");
  }
  return 0;
}

/* The first child of `die`, or NULL in `child`. */
static int first_child(Dwarf_Die die, uint32_t offset, Dwarf_Die *child) {
  Dwarf_Error error = NULL;
  *child = NULL;
  return dwarf_child(die, child, &error) == DW_DLV_ERROR ? fail_with(offset, error) : 0;
}

/*
 * Frees *die and puts its next sibling there, or NULL behind the last. Each entry of a list lies behind the one
 * before it, so the unit's end bounds the walk.
 */
static int next_sibling(Dwarf_Die *die) {
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

static int failed_at(Dwarf_Die die) {
  dwarf_dealloc_die(die);
  return -1;
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

static void forget_hashes(void);

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
  entries_read = 0;
  root_end = 0;
  forget_hashes();
  split_file = split_folder = NULL;
  is_root = 1;
  struct record *record = push();
  result = record && read_entry(root, record, &root_end) == 0 ? 1 : -1;
  is_root = 0;
  return result;
}

/* Where the root entry's last attribute begins: with less of the unit than that in memory, it is not to be trusted. */
EXPORT(root_extent) uint32_t root_extent(void) { return root_end; }

/* How many references to entries of other units have been read in all. */
EXPORT(count_crossings) uint32_t count_crossings(void) { return crossings; }

/* Records the entry at `offset` and its direct children. */
EXPORT(read_tree) int read_tree(uint32_t offset) {
  Dwarf_Die die = NULL, child = NULL;
  list_length = 0;
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

/* ---- sets of 64-bit hashes ---- */

struct set {
  uint64_t *slots; /* 0: free */
  uint32_t capacity, used;
};

static struct set wanted_names, seen;

static uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ hash >> 32;
}

static uint64_t hash_bytes(const char *bytes, uint32_t length) {
  uint64_t hash = length;
  for (uint32_t i = 0; i < length; i++) {
    hash = mix(hash, (uint8_t)bytes[i]);
  }
  return hash;
}

static int set_has(const struct set *set, uint64_t hash) {
  if (!set->used) {
    return 0;
  }
  hash |= hash == 0;
  for (uint32_t at = (uint32_t)hash;; at++) {
    uint64_t slot = set->slots[at & (set->capacity - 1)];
    if (slot == hash || !slot) {
      return slot == hash;
    }
  }
}

/* 1: added, 0: was there, -1: out of memory */
static int set_add(struct set *set, uint64_t hash) {
  if (set_has(set, hash)) {
    return 0;
  }
  if ((set->used + 1) * 2 > set->capacity) {
    struct set grown = {NULL, set->capacity ? set->capacity * 2 : 1024, 0};
    grown.slots = calloc(grown.capacity, sizeof *grown.slots);
    if (!grown.slots) {
      return fail(0, "out of memory");
    }
    for (uint32_t i = 0; i < set->capacity; i++) {
      if (set->slots[i]) {
        set_add(&grown, set->slots[i]);
      }
    }
    free(set->slots);
    *set = grown;
  }
  hash |= hash == 0;
  uint32_t at = (uint32_t)hash;
  while (set->slots[at & (set->capacity - 1)]) {
    at++;
  }
  set->slots[at & (set->capacity - 1)] = hash;
  set->used++;
  return 1;
}

/* ---- fingerprints ---- */

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

static void forget_hashes(void) {
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

/* ---- definitions ---- */

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
    if (hash_entry((uint32_t)offset, 1, 0, &fingerprint) != 0) {
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
  list_length = 0;
  if (!root) {
    return fail(0, "no unit is open");
  }
  if (first_child(root, 0, &child) != 0) {
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
  return (int)list_length;
}
