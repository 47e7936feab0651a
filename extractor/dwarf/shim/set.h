/* A set of 64-bit hashes. */
#ifndef SET_H
#define SET_H

#include <stdint.h>

struct set {
  uint64_t *slots; /* 0: free */
  uint32_t capacity, used;
};

/* 1: it was added, 0: it was there, -1: out of memory */
int set_add(struct set *set, uint64_t hash);

/* These three are called for every entry, so they are compiled where they are used. */

static inline uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ hash >> 32;
}

static inline uint64_t hash_bytes(const char *bytes, uint32_t length) {
  uint64_t hash = length;
  for (uint32_t i = 0; i < length; i++) {
    hash = mix(hash, (uint8_t)bytes[i]);
  }
  return hash;
}

static inline int set_has(const struct set *set, uint64_t hash) {
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


#endif
