#include "set.h"
#include "shim.h"

int set_add(struct set *set, uint64_t hash) {
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
