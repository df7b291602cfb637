/* GPT-2's tokenizer: splitting by its pattern, then byte-level BPE. The ids of a word come from the cache, or
 * from merging its pairs by a heap, in the order in which `tokenizers` merges them, stale entries included.
 */
#pragma once
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tables.h"
#include "tokenizer.h"
#include "unicode.h"
#include "word_cache.h"

namespace ec {

struct ByteScratch {
  struct Symbol {
    int32_t id, before, behind; /* behind: -1 at the end */
    bool alive;
  };
  struct Candidate {
    uint32_t rank, at;
    int32_t id;
    bool operator<(const Candidate& other) const { /* the heap's first is the lowest */
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };

  WordCache cache;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<uint8_t> spaced; /* a text with a space before it */
};

/* The bytes that a token of the vocabulary stands for: each is spelled as a visible character. False: it
 * stands for none. */
inline bool read_spelling(std::string_view token, std::string& bytes) {
  static const std::vector<int16_t> byte_of = [] {
    std::vector<int16_t> found(324, -1);
    int next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool visible = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      found[size_t(visible ? b : next++)] = int16_t(b);
    }
    return found;
  }();
  bytes.clear();
  const auto* p = reinterpret_cast<const uint8_t*>(token.data());
  for (const uint8_t* end = p + token.size(); p < end;) {
    if (*p >= 0xe0 || (*p >= 0xc0 && p + 1 == end)) return false;
    const uint32_t c = next_character(p);
    if (c >= byte_of.size() || byte_of[c] < 0) return false;
    bytes.push_back(char(byte_of[c]));
  }
  return true;
}

class ByteLevel {
 public:
  /* Throws std::invalid_argument where a byte or a part of a merge is not in the vocabulary. */
  ByteLevel(const ec_tokenizer_spec& spec, const std::vector<std::string_view>& vocabulary,
            const std::vector<std::string_view>& merges)
      : prefix_space_(spec.prefix_space),
        ignore_merges_(spec.ignore_merges),
        nfc_(spec.nfc),
        unicode_(Unicode::get()),
        words_(vocabulary.size()),
        merges_(merges.size()) {
    std::string bytes, right;
    for (size_t i = 0; i < vocabulary.size(); ++i)
      if (read_spelling(vocabulary[i], bytes)) words_.add(bytes, spec.ids[i]);
    for (int b = 0; b < 256; ++b) {
      const char byte = char(b);
      single_[b] = words_.find({&byte, 1});
      if (single_[b] < 0) throw std::invalid_argument("a byte is not in the vocabulary");
    }
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const size_t space = merges[rank].find(' ');
      const bool read = space != std::string_view::npos &&
                        read_spelling(merges[rank].substr(0, space), bytes) &&
                        read_spelling(merges[rank].substr(space + 1), right);
      const int32_t a = read ? words_.find(bytes) : -1, b = read ? words_.find(right) : -1;
      const int32_t both = a < 0 || b < 0 ? -1 : words_.find(bytes + right);
      if (both < 0) throw std::invalid_argument("a merge is not of two tokens of the vocabulary");
      merges_.add(a, b, {uint32_t(rank), both});
    }
  }

  /* Appends the ids of a text of n bytes; false: it is left. */
  bool run(const uint8_t* text, size_t n, ByteScratch& scratch, std::vector<int32_t>& out) const {
    if (!known(text, text + n)) return false;
    if (prefix_space_ && n == 0) return false;
    if (prefix_space_ && *text != ' ') {
      scratch.spaced.assign(1, ' ');
      scratch.spaced.insert(scratch.spaced.end(), text, text + n);
      scratch.spaced.insert(scratch.spaced.end(), EC_TOKENIZER_SLACK, 0);
      text = scratch.spaced.data(), ++n;
    }
    for (const uint8_t *p = text, *end = text + n; p < end;) {
      const uint8_t* behind = word_end(p, end);
      const size_t size = size_t(behind - p);
      scratch.cache.ids(p, size, out, [&] { merge(p, size, scratch, out); });
      p = behind;
    }
    return true;
  }

 private:
  /* Whether each character is one on which all versions of Unicode agree, and normalizing would change
   * nothing. */
  bool known(const uint8_t* p, const uint8_t* end) const {
    for (uint32_t last = 0; p < end;) {
      if (*p < 128) {
        last = 0, ++p;
        continue;
      }
      const uint32_t info = unicode_.info(next_character(p));
      if (info & ODD_IN_BYTES) return false;
      if (!nfc_) continue;
      const uint32_t order = info >> 16;
      if ((info & NOT_NFC) || (order && order < last)) return false;
      last = order;
    }
    return true;
  }

  uint32_t kind(const uint8_t*& p) const {
    return unicode_.info(next_character(p)) & (LETTER | NUMBER | SPACE);
  }

  /* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
  const uint8_t* word_end(const uint8_t* p, const uint8_t* end) const {
    if (*p == '\'' && end - p > 1) {
      const uint8_t a = p[1], b = end - p > 2 ? p[2] : 0;
      if (a == 's' || a == 't' || a == 'm' || a == 'd') return p + 2;
      if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return p + 3;
    }
    const uint8_t* q = *p == ' ' && end - p > 1 ? p + 1 : p;
    const uint32_t first = kind(q);
    if (first != SPACE) {
      while (q < end) {
        const uint8_t* behind = q;
        if (kind(behind) != first) break;
        q = behind;
      }
      return q;
    }
    const uint8_t* last = p; /* the last white character of a run; it stays with what follows */
    q = p;
    while (q < end) {
      const uint8_t* behind = q;
      if (kind(behind) != SPACE) break;
      last = q, q = behind;
    }
    return q == end || last == p ? q : last;
  }

  void merge(const uint8_t* word, size_t size, ByteScratch& scratch, std::vector<int32_t>& out) const {
    if (ignore_merges_) {
      const int32_t whole = words_.find({reinterpret_cast<const char*>(word), size});
      if (whole >= 0) return out.push_back(whole);
    }
    auto& symbols = scratch.symbols;
    symbols.clear(), scratch.heap.clear();
    for (size_t i = 0; i < size; ++i)
      symbols.push_back({single_[word[i]], int32_t(i) - 1, i + 1 < size ? int32_t(i + 1) : -1, true});
    for (size_t i = 0; i + 1 < size; ++i) push(uint32_t(i), scratch, false);
    std::make_heap(scratch.heap.begin(), scratch.heap.end());
    while (!scratch.heap.empty()) {
      std::pop_heap(scratch.heap.begin(), scratch.heap.end());
      const ByteScratch::Candidate top = scratch.heap.back();
      scratch.heap.pop_back();
      ByteScratch::Symbol& left = symbols[top.at];
      if (!left.alive || left.behind < 0) continue;
      ByteScratch::Symbol& right = symbols[size_t(left.behind)];
      const Merge* now = merges_.find(left.id, right.id);
      if (!now || now->id != top.id) continue; /* one of the two has become another */
      left.id = top.id, left.behind = right.behind, right.alive = false;
      if (left.behind >= 0) symbols[size_t(left.behind)].before = int32_t(top.at);
      if (left.before >= 0) push(uint32_t(left.before), scratch, true);
      push(top.at, scratch, true);
    }
    for (int32_t i = 0; i >= 0; i = symbols[size_t(i)].behind) out.push_back(symbols[size_t(i)].id);
  }

  /* The symbol there and the next, if they merge. */
  void push(uint32_t at, ByteScratch& scratch, bool heap) const {
    const ByteScratch::Symbol& left = scratch.symbols[at];
    if (left.behind < 0) return;
    const Merge* merge = merges_.find(left.id, scratch.symbols[size_t(left.behind)].id);
    if (!merge) return;
    scratch.heap.push_back({merge->rank, at, merge->id});
    if (heap) std::push_heap(scratch.heap.begin(), scratch.heap.end());
  }

  const bool prefix_space_, ignore_merges_, nfc_;
  const Unicode& unicode_;
  StringTable words_;
  MergeTable merges_;
  int32_t single_[256];
};

}  // namespace ec
