/* The caller's memory, and the sections in it, as libdwarf asks for them. */
#include "shim.h"

static const char *const section_names[SECTION_COUNT] = {
    ".debug_info", ".debug_types", ".debug_abbrev", ".debug_str", ".debug_line_str",
    ".debug_str_offsets", ".debug_addr",
};

struct section_bytes sections[ALL_SECTIONS];

EXPORT(allocate) void *allocate(uint32_t size) { return malloc(size); }
EXPORT(release) void release(void *memory) { free(memory); }

EXPORT(set_section) void set_section(uint32_t index, Dwarf_Small *data, uint32_t size) {
  if (index < ALL_SECTIONS) {
    sections[index].data = data;
    sections[index].size = size;
  }
}


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
Dwarf_Obj_Access_Interface_a section_access = {NULL, &methods};
