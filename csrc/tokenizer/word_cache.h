/* A cache of words' ids: a line of memory per word, found by the word's hash, compared in full, and
 * overwritten by the next word with the same hash. It takes 512 KB per thread, whatever the texts are. */
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "tables.h"

namespace ec {

class WordCache {
 public:
  WordCache() : lines_(LINES) {}

  /* Appends the ids of a word, by compute() where they are not here; it appends them too. WORD bytes can be
   * read there, whatever the word's size. */
  template <class Compute>
  void ids(const uint8_t* word, size_t size, std::vector<int32_t>& out, Compute compute) {
    if (size > WORD) return compute();
    const Key found = key(word, size);
    if (find(found, size, out)) return;
    const size_t begin = out.size();
    compute();
    keep(found, size, out.data() + begin, out.size() - begin);
  }

 private:
  struct Key {
    uint64_t part[3];
    uint64_t hash;
  };

  static constexpr size_t WORD = 24, IDS = 8; /* longer ones, and words of more ids, are computed each time */
  static constexpr size_t LINES = 8192;

  struct alignas(64) Line {
    uint64_t part[3];
    int32_t ids[IDS];
    uint8_t size = 0, n = 0; /* size: one more than the word's, 0 is empty */
  };

  /* Of a word of at most WORD bytes. */
  static Key key(const uint8_t* word, size_t size) {
    Key key;
    std::memcpy(key.part, word, WORD);
    for (size_t i = 0; i < 3; ++i) {
      const size_t here = size > 8 * i ? size - 8 * i : 0;
      if (here < 8) key.part[i] &= (uint64_t{1} << 8 * here) - 1;
    }
    key.hash = mix((key.part[0] * HASH_FACTOR ^ key.part[1]) * HASH_FACTOR ^ key.part[2] ^ size << 56);
    return key;
  }

  /* Appends the ids of a word; false: it is not here. */
  bool find(const Key& key, size_t size, std::vector<int32_t>& out) const {
    const Line& line = lines_[key.hash % LINES];
    if (line.size != size + 1 || std::memcmp(line.part, key.part, sizeof line.part) != 0) return false;
    if (line.n == 1)
      out.push_back(line.ids[0]);
    else
      out.insert(out.end(), line.ids, line.ids + line.n);
    return true;
  }

  void keep(const Key& key, size_t size, const int32_t* ids, size_t n) {
    if (n > IDS) return;
    Line& line = lines_[key.hash % LINES];
    std::memcpy(line.part, key.part, sizeof line.part);
    line.size = uint8_t(size + 1), line.n = uint8_t(n);
    std::memcpy(line.ids, ids, n * sizeof *ids);
  }

  std::vector<Line> lines_;
};

}  // namespace ec
