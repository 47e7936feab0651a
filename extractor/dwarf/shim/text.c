/* Strings of entries, those of .dwo files and of dwz's alternate file too. */
#include "shim.h"

uint64_t little_endian(const uint8_t *bytes, uint32_t size) {
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
int text_of(Dwarf_Die die, Dwarf_Attribute attribute, Dwarf_Half form, char **text, Dwarf_Error *error) {
  int is_alternate = form == DW_FORM_GNU_strp_alt || form == DW_FORM_strp_sup;
  uint32_t width = is_alternate ? unit.offset_size : index_width(form);
  if (!is_alternate && !(is_split && (width || form == DW_FORM_strx || form == DW_FORM_GNU_str_index))) {
    return dwarf_formstring(attribute, text, error);
  }
  Dwarf_Off at = 0;
  if (dwarf_attr_offset(die, attribute, &at, error) != DW_DLV_OK) {
    return DW_DLV_ERROR;
  }
  const uint8_t *bytes = unit_bytes()->data;
  uint32_t size = unit_bytes()->size;
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
    uint64_t entry = (unit.version < 5 ? 0 : unit.offset_size == 8 ? 16 : 8) + value * unit.offset_size;
    if (entry + unit.offset_size > sections[STR_OFFSETS].size) {
      return DW_DLV_ERROR;
    }
    value = little_endian(sections[STR_OFFSETS].data + entry, unit.offset_size);
  }
  if (value >= sections[strings].size || !memchr(sections[strings].data + value, 0, sections[strings].size - value)) {
    return DW_DLV_ERROR;
  }
  *text = (char *)sections[strings].data + value;
  return DW_DLV_OK;
}

/* The name of an entry, as dwarf_diename() gives it. */
int name_of(Dwarf_Die die, char **name, Dwarf_Error *error) {
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
