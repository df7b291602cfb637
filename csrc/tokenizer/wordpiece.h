/* BERT's tokenizer: cleaning, accents, lower case and splitting, character by character; then the longest
 * pieces that the vocabulary has, from the left. A text is read once. The ids of a word come from the cache,
 * or from a lookup of each of its prefixes. */
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "tables.h"
#include "tokenizer.h"
#include "unicode.h"
#include "word_cache.h"

namespace ec {

/* The memory of a thread, so that nothing is allocated per word. */
struct WordScratch {
  WordCache cache;
  std::vector<uint8_t> word;     /* longer than any word, see WordPiece::room */
  std::vector<uint64_t> hashes;  /* of the beginnings of what is left of a word */
  std::vector<uint32_t> lengths; /* and their bytes */
};

class WordPiece {
 public:
  WordPiece(const ec_tokenizer_spec& spec, const std::vector<std::string_view>& vocabulary)
      : spec_(spec), unicode_(Unicode::get()), first_(vocabulary.size()), inner_(vocabulary.size()) {
    const std::string_view prefix(spec.continuing.bytes, size_t(spec.continuing.offsets[1]));
    for (size_t i = 0; i < vocabulary.size(); ++i) {
      const std::string_view token = vocabulary[i];
      if (token.empty()) continue;
      first_.add(token, spec.ids[i]);
      if (token.size() > prefix.size() && token.substr(0, prefix.size()) == prefix)
        inner_.add(token.substr(prefix.size()), spec.ids[i]);
    }
    for (uint32_t c = 0; c < 128; ++c) {
      const uint32_t info = unicode_.info(c);
      const bool lower = spec.lowercase && (info & LOWERED);
      ascii_[c] = uint8_t(lower ? c + 32 : c);
      if (info & DROPPED) ascii_[c] = DROP;
      if (info & BLANK) ascii_[c] = END;
      if (info & PUNCTUATION) ascii_[c] = ALONE;
    }
  }

  /* Appends the ids of a text of n bytes; false: it is left. */
  bool run(const uint8_t* text, size_t n, WordScratch& scratch, std::vector<int32_t>& out) const {
    if (scratch.word.size() < 4 * n + 64) scratch.word.resize(4 * n + 64);
    uint8_t* const word = scratch.word.data();
    State state{word, 0};
    for (const uint8_t *p = text, *end = text + n; p < end;) {
      if (*p >= 128) {
        if (!other(next_character(p), word, state, scratch, out)) return false;
        continue;
      }
      const uint8_t what = ascii_[*p++];
      if (what >= FIRST_KEPT) {
        *state.at++ = what, ++state.characters;
      } else if (what == END) {
        flush(word, state, scratch, out);
      } else if (what == ALONE) {
        alone(p[-1], word, state, scratch, out);
      }
    }
    flush(word, state, scratch, out);
    return true;
  }

 private:
  enum : uint8_t { DROP = 0, END = 1, ALONE = 2, FIRST_KEPT = 3 }; /* no kept character has such a code */

  /* A word so far: behind its last byte, and how many characters it has. */
  struct State {
    uint8_t* at;
    int64_t characters;
  };

  bool other(uint32_t c, uint8_t* word, State& state, WordScratch& scratch, std::vector<int32_t>& out) const {
    const uint32_t info = unicode_.info(c);
    if (info & ODD_IN_WORDS) return false;
    if (info & DROPPED) return true;
    const bool apart = (info & BLANK) || (spec_.ideographs && (info & IDEOGRAPH));
    if (apart) flush(word, state, scratch, out);
    if (info & BLANK) return true;
    if (!spec_.strip_accents || !(info & (MARK | STRIPPED))) {
      lower(c, info, word, state, scratch, out);
    } else if (c >= HANGUL && c < HANGUL + 19 * 588) {
      const uint32_t at = c - HANGUL;
      lower(0x1100 + at / 588, 0, word, state, scratch, out);
      lower(0x1161 + at % 588 / 28, 0, word, state, scratch, out);
      if (at % 28) lower(0x11a7 + at % 28, 0, word, state, scratch, out);
    } else if (info & STRIPPED) {
      const Mapping* to = Unicode::find(std::begin(STRIPPED_TO), std::end(STRIPPED_TO), c);
      for (uint32_t i = 0; i < to->n; ++i)
        lower(to->to[i], unicode_.info(to->to[i]), word, state, scratch, out);
    }
    if (apart) flush(word, state, scratch, out);
    return true;
  }

  void lower(uint32_t c, uint32_t info, uint8_t* word, State& state, WordScratch& scratch,
             std::vector<int32_t>& out) const {
    if (!spec_.lowercase || !(info & LOWERED)) return add(c, info, word, state, scratch, out);
    const Mapping* to = Unicode::find(std::begin(LOWERED_TO), std::end(LOWERED_TO), c);
    for (uint32_t i = 0; i < to->n; ++i) add(to->to[i], unicode_.info(to->to[i]), word, state, scratch, out);
  }

  void add(uint32_t c, uint32_t info, uint8_t* word, State& state, WordScratch& scratch,
           std::vector<int32_t>& out) const {
    if (info & PUNCTUATION) return alone(c, word, state, scratch, out);
    put_character(state.at, c);
    ++state.characters;
  }

  void alone(uint32_t c, uint8_t* word, State& state, WordScratch& scratch, std::vector<int32_t>& out) const {
    flush(word, state, scratch, out);
    put_character(state.at, c);
    ++state.characters;
    flush(word, state, scratch, out);
  }

  void flush(uint8_t* word, State& state, WordScratch& scratch, std::vector<int32_t>& out) const {
    const size_t size = size_t(state.at - word);
    if (!size) return;
    const int64_t characters = state.characters;
    state = {word, 0};
    scratch.cache.ids(word, size, out, [&] { pieces(word, size, characters, scratch, out); });
  }

  void pieces(const uint8_t* word, size_t size, int64_t characters, WordScratch& scratch,
              std::vector<int32_t>& out) const {
    if (characters > spec_.max_chars) return out.push_back(spec_.unknown);
    const size_t begin = out.size();
    for (size_t start = 0; start < size;) {
      const StringTable& table = start ? inner_ : first_;
      const size_t most = std::min(size - start, table.longest());
      scratch.hashes.clear(), scratch.lengths.clear();
      uint64_t hash = 0;
      for (size_t i = 0; i < most; ++i) {
        hash = hash_step(hash, word[start + i]);
        if (start + i + 1 == size || (word[start + i + 1] & 0xc0) != 0x80) {
          scratch.hashes.push_back(hash);
          scratch.lengths.push_back(uint32_t(i + 1));
        }
      }
      int32_t id = -1;
      size_t length = 0;
      for (size_t k = scratch.hashes.size(); k-- && id < 0;) {
        length = scratch.lengths[k];
        id = table.find({reinterpret_cast<const char*>(word) + start, length}, scratch.hashes[k]);
      }
      if (id < 0) {
        out.resize(begin);
        return out.push_back(spec_.unknown);
      }
      out.push_back(id);
      start += length;
    }
  }

  static constexpr uint32_t HANGUL = 0xac00;

  const ec_tokenizer_spec spec_; /* of its pointers none is used after the constructor */
  const Unicode& unicode_;
  StringTable first_, inner_; /* pieces that begin a word, and those inside, without their prefix */
  uint8_t ascii_[128];
};

}  // namespace ec
