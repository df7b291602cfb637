/* Properties of characters: one number per code point, expanded once from the runs of unicode.inc (800 KB, of
 * which a text touches a few pages), and each character without accents and in lower case. */
#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

namespace ec {

struct Run {
  uint32_t first, info;
};

struct Mapping {
  uint32_t from, n, to[3];
};

#include "unicode.inc"

/* The flags of make_unicode.py; the canonical combining class is in the bits from 16. */
enum : uint32_t {
  LETTER = 1 << 0,
  NUMBER = 1 << 1,
  SPACE = 1 << 2,
  DROPPED = 1 << 3,       /* by BERT's cleaning */
  BLANK = 1 << 4,         /* a space after it */
  IDEOGRAPH = 1 << 5,     /* a word for itself */
  PUNCTUATION = 1 << 6,   /* a word for itself */
  MARK = 1 << 7,          /* an accent, nothing without accents */
  STRIPPED = 1 << 8,      /* something else without accents */
  LOWERED = 1 << 9,       /* something else in lower case */
  ODD_IN_WORDS = 1 << 10, /* not known to BERT's steps */
  ODD_IN_BYTES = 1 << 11, /* not known to the byte-level splitting */
  NOT_NFC = 1 << 12,      /* may not stand in a text in form C, or may join what is before it */
};

class Unicode {
 public:
  static const Unicode& get() {
    static const Unicode unicode;
    return unicode;
  }

  uint32_t info(uint32_t c) const {
    return c < info_.size() ? info_[c] : uint32_t{ODD_IN_WORDS | ODD_IN_BYTES};
  }

  static const Mapping* find(const Mapping* begin, const Mapping* end, uint32_t c) {
    const Mapping* at =
        std::lower_bound(begin, end, c, [](const Mapping& one, uint32_t what) { return one.from < what; });
    return at != end && at->from == c ? at : nullptr;
  }

 private:
  Unicode() {
    const size_t n = std::size(RUNS);
    info_.resize(RUNS[n - 1].first + 1);
    for (size_t i = 0; i + 1 < n; ++i)
      std::fill(info_.begin() + RUNS[i].first, info_.begin() + RUNS[i + 1].first, RUNS[i].info);
    info_.back() = RUNS[n - 1].info;
  }

  std::vector<uint32_t> info_;
};

/* Decodes the character at p, which is valid UTF-8, and advances p past it. */
inline uint32_t next_character(const uint8_t*& p) {
  const uint32_t a = *p;
  if (a < 0x80) return ++p, a;
  if (a < 0xe0) return p += 2, (a & 31) << 6 | (p[-1] & 63u);
  if (a < 0xf0) return p += 3, (a & 15) << 12 | (p[-2] & 63u) << 6 | (p[-1] & 63u);
  return p += 4, (a & 7) << 18 | (p[-3] & 63u) << 12 | (p[-2] & 63u) << 6 | (p[-1] & 63u);
}

/* Writes up to 4 bytes to p and advances p past them. */
inline void put_character(uint8_t*& p, uint32_t c) {
  if (c < 0x80) {
    *p++ = uint8_t(c);
  } else if (c < 0x800) {
    *p++ = uint8_t(0xc0 | c >> 6);
    *p++ = uint8_t(0x80 | (c & 63));
  } else if (c < 0x10000) {
    *p++ = uint8_t(0xe0 | c >> 12);
    *p++ = uint8_t(0x80 | (c >> 6 & 63));
    *p++ = uint8_t(0x80 | (c & 63));
  } else {
    *p++ = uint8_t(0xf0 | c >> 18);
    *p++ = uint8_t(0x80 | (c >> 12 & 63));
    *p++ = uint8_t(0x80 | (c >> 6 & 63));
    *p++ = uint8_t(0x80 | (c & 63));
  }
}

}  // namespace ec
