/* DeBERTa's disentangled attention: what distances add to the scores of one head (He et al., 2021, equation
 * 4),
 *
 *     s_ij = q_i . k_j + q_i . Kr_d + k_j . Qr_d,    d = bucket of j - i,
 *
 * where Kr and Qr are the key's and the query's matrix on the embeddings of the buckets, multiplied once when
 * the encoder is made. Every sum is a product of the kernel: [queries or keys][buckets in reach], from which
 * a score takes two numbers.
 *
 * Touches, for a row of L tokens, 4 (kQueries + L) (L + kQueries) bytes at most, in L2 for short rows. Costs
 * twice the scores' own product, for a block reaches L + kQueries distances, and a handful of cycles a score.
 */
#ifndef EMBEDCACHE_ENCODER_DISENTANGLED_H
#define EMBEDCACHE_ENCODER_DISENTANGLED_H

#include "blocks.h"
#include "epilogues.h"
#include "model.h"

namespace EC_ISA {

/* Numbers of one head: at [row][bucket - base of the head]. */
struct DistanceMemory {
  float* of_queries; /* [kQueries][columns] */
  float* of_keys;    /* [L][columns] */
  float* added;      /* [L], to one row of scores */
  int64_t columns;

  template <class Word>
  void take(Arena* arena, const Model<Word>& model, int64_t longest) {
    const int32_t* bucket = model.buckets();
    if (!bucket) return;
    const int64_t reach = bucket[longest - 1] - bucket[1 - longest] + 1;
    columns = round_up(reach, kBlock) + kBlock; /* the first bucket lies somewhere in its panel */
    of_queries = arena->take<float>(kQueries * columns);
    of_keys = arena->take<float>(longest * columns);
    added = arena->take<float>(round_up(longest, kBlock));
  }
};

/* Distances within a row, head after head. Without buckets it is not to be asked. */
template <class Word>
struct MetDistances {
  const DistanceMemory& memory;
  const int32_t* bucket;
  int64_t length, base; /* base: the column 0 of the memory */
  float scale;

  MetDistances(const DistanceMemory& memory, const Model<Word>& model, int64_t length)
      : memory(memory),
        bucket(model.buckets()),
        length(length),
        base(bucket ? bucket[1 - length] / kBlock * kBlock : 0),
        scale(model.scale) {}

  /* Rows of queries or keys times the buckets of the distances from `least` to `most`. */
  void multiply(Rows<Word> rows, int64_t n, Panels<Word> table, int64_t words, int64_t least, int64_t most,
                float* out) const {
    const int64_t first = bucket[least] / kBlock * kBlock;
    table.data += first / kBlock * table.panel;
    product(rows, n, table, round_up(bucket[most] + 1 - first, kBlock), words,
            Store{out + first - base, memory.columns});
  }
  /* All keys' numbers. A block of them is met at the distances of its own. */
  void keys(Rows<Word> rows, const Panels<Word>& table, int64_t words, int64_t queries) const {
    for (int64_t j = 0; j < length; j += kQueries) {
      const int64_t n = length - j < kQueries ? length - j : kQueries;
      multiply({rows.data + j * rows.stride, rows.stride}, n, table, words, j - queries + 1, j + n - 1,
               memory.of_keys + j * memory.columns);
    }
  }
  /* Those of queries [first, first + n). */
  void queries(Rows<Word> rows, int64_t first, int64_t n, const Panels<Word>& table, int64_t words) const {
    multiply(rows, n, table, words, 1 - first - n, length - 1 - first, memory.of_queries);
  }
  /* What is added to the scaled scores of query `first + i`; it is overwritten by the next. */
  const float* added_to(int64_t first, int64_t i) const {
    const float *own = memory.of_queries + i * memory.columns - base, *theirs = memory.of_keys - base;
    const int32_t* d = bucket - first - i;
    for (int64_t j = 0; j < length; ++j, theirs += memory.columns)
      memory.added[j] = (own[d[j]] + theirs[d[j]]) * scale;
    return memory.added;
  }
};

}  // namespace EC_ISA

#endif
