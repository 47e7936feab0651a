/* An entry's attributes, as far as C types need them. */
#include "shim.h"

/* References so far that may lead to another unit. */
static uint32_t crossings;

/* Whether the entry that is read is its unit's root; where a skeleton's root says that its .dwo file is. */
static int is_root;
static char *split_file, *split_folder;

EXPORT(split_name) const char *split_name(void) { return split_file; }
EXPORT(split_directory) const char *split_directory(void) { return split_folder; }

/* How many references to entries of other units have been read in all. */
EXPORT(count_crossings) uint32_t count_crossings(void) { return crossings; }

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
    dwarf_dealloc(unit.debug, block, DW_DLA_BLOCK);
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
                     : unit.version == 2 && !is_alternate ? unit.address_size
                                                          : unit.offset_size;
    uint32_t size = unit_bytes()->size;
    if (width > 8 || at > size || width > size - at) {
      return fail((uint32_t)at, "a reference lies outside its unit");
    }
    record->type = little_endian(unit_bytes()->data + at, width);
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
int read_entry(Dwarf_Die die, struct record *record, uint32_t *end) {
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
    dwarf_dealloc(unit.debug, attributes, DW_DLA_LIST);
  }
  if (failed) {
    return error ? fail_with((uint32_t)offset, error) : fail((uint32_t)offset, "an attribute has an unexpected form");
  }
  return 0;
}

int read_root(Dwarf_Die die, struct record *record, uint32_t *end) {
  split_file = split_folder = NULL;
  is_root = 1;
  int result = read_entry(die, record, end);
  is_root = 0;
  return result;
}
