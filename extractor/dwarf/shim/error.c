/* Why a call failed, and at which entry. */
#include "shim.h"

static char message[256];
static uint32_t message_offset;

int fail(uint32_t offset, const char *text) {
  size_t length = strlen(text);
  if (length >= sizeof message) {
    length = sizeof message - 1;
  }
  memcpy(message, text, length);
  message[length] = 0;
  message_offset = offset;
  return -1;
}

int fail_with(uint32_t offset, Dwarf_Error error) {
  int result = fail(offset, error ? dwarf_errmsg(error) : "libdwarf gave no reason");
  if (error) {
    dwarf_dealloc_error(unit.debug, error);
  }
  return result;
}

EXPORT(error_message) const char *error_message(void) { return message; }
EXPORT(error_offset) uint32_t error_offset(void) { return message_offset; }
