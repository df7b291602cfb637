/* Hash tables with open addressing, filled once and then only read: from strings to ids, and from pairs of
 * ids to the id that they merge to. */
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace ec {

constexpr uint64_t HASH_FACTOR = 0x9e3779b97f4a7c15;

inline uint64_t mix(uint64_t h) {
  h ^= h >> 32;
  h *= HASH_FACTOR;
  return h ^ h >> 29;
}

/* The hash of a string is extended byte by byte, so that one pass hashes all prefixes of a word. */
inline uint64_t hash_step(uint64_t h, uint8_t byte) { return (h ^ byte) * HASH_FACTOR ^ h >> 47; }

/* Slots for n entries at a load of at most a half. */
inline size_t slots_for(size_t n) {
  size_t slots = 16;
  while (slots < 2 * n) slots *= 2;
  return slots;
}

class StringTable {
 public:
  explicit StringTable(size_t n) : slots_(slots_for(n)), mask_(slots_.size() - 1) {}

  /* At most n different ones. */
  void add(std::string_view key, int32_t id) {
    Slot& slot = slots_[place(key, hash(key))];
    if (slot.size == 0) {
      slot.begin = uint32_t(bytes_.size());
      bytes_.insert(bytes_.end(), key.begin(), key.end());
    }
    slot.size = uint32_t(key.size()) + 1, slot.hash = uint32_t(mix(hash(key))), slot.id = id;
    longest_ = longest_ < key.size() ? key.size() : longest_;
  }

  size_t longest() const { return longest_; }

  /* The id, or -1; h is the key's hash. */
  int32_t find(std::string_view key, uint64_t h) const {
    const Slot& slot = slots_[place(key, h)];
    return slot.size ? slot.id : -1;
  }

  int32_t find(std::string_view key) const { return find(key, hash(key)); }

  static uint64_t hash(std::string_view key) {
    uint64_t h = 0;
    for (const char c : key) h = hash_step(h, uint8_t(c));
    return h;
  }

 private:
  struct Slot {
    uint32_t hash = 0, begin = 0, size = 0; /* size: one more than the key's, 0 is empty */
    int32_t id = 0;
  };

  size_t place(std::string_view key, uint64_t h) const {
    const uint64_t mixed = mix(h);
    for (size_t i = mixed & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.size == 0) return i;
      if (slot.hash == uint32_t(mixed) && slot.size == key.size() + 1 &&
          std::memcmp(bytes_.data() + slot.begin, key.data(), key.size()) == 0)
        return i;
    }
  }

  std::vector<Slot> slots_;
  size_t mask_, longest_ = 0;
  std::vector<char> bytes_;
};

struct Merge {
  uint32_t rank;
  int32_t id;
};

class MergeTable {
 public:
  explicit MergeTable(size_t n) : slots_(slots_for(n)), mask_(slots_.size() - 1) {}

  void add(int32_t left, int32_t right, Merge merge) {
    Slot& slot = slots_[place(key(left, right))];
    slot = {key(left, right), merge};
  }

  const Merge* find(int32_t left, int32_t right) const {
    const Slot& slot = slots_[place(key(left, right))];
    return slot.key == EMPTY ? nullptr : &slot.merge;
  }

 private:
  static constexpr uint64_t EMPTY = ~uint64_t{0};

  struct Slot {
    uint64_t key = EMPTY;
    Merge merge{0, 0};
  };

  static uint64_t key(int32_t left, int32_t right) {
    return uint64_t(uint32_t(left)) << 32 | uint32_t(right);
  }

  size_t place(uint64_t key) const {
    size_t i = mix(key * HASH_FACTOR) & mask_;
    while (slots_[i].key != EMPTY && slots_[i].key != key) i = (i + 1) & mask_;
    return i;
  }

  std::vector<Slot> slots_;
  size_t mask_;
};

}  // namespace ec
