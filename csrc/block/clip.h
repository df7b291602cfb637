/* The norm of a step's whole gradient before any weight moves.
 *
 * For a matrix whose gradient is G = Y' X, |G|^2 = sum_bc (Y Y')_bc (X X')_bc: two products of a batch with
 * itself, B (out + in) multiply-adds a row in place of out * in, hence a few percent of a step for small
 * batches, and G is never in memory. Where that is more than an eighth of G, or for keys and values, whose x
 * has a row for each head, G is made, squared and kept for the update: 8 bytes a weight. Layers that are
 * computed for every token have left G in memory already. Exact either way, but for rounding; the former's
 * products are float32 in bfloat16, too. Sums have fixed places, added up in one order by every member.
 */
#ifndef EMBEDCACHE_BLOCK_CLIP_H
#define EMBEDCACHE_BLOCK_CLIP_H

#include "backward.h"

namespace EC_ISA {

/* Adds to squares[b], for the member's rows b. */
static void square_by_rows(const Trainee& t, const Member& me, Rows<float> y, int64_t outs, Rows<float> x,
                           int64_t ins, int64_t n) {
  const Range rows = part_of(me, n, 1);
  for (int64_t b = rows.first; b < rows.last; b += kGramRows) {
    const int64_t some = rows.last - b < kGramRows ? rows.last - b : kGramRows;
    const Rows<float> of[2] = {y, x};
    const int64_t columns[2] = {round_up(outs, kLanes), ins};
    for (int i = 0; i < 2; ++i)
      dots(Rows<float>{of[i].data + b * of[i].stride, of[i].stride}, some,
           Lines<float>{of[i].data, of[i].stride, 1, 1}, n, columns[i], me.gram[i], t.capacity);
    for (int64_t r = 0; r < some; ++r)
      for (int64_t c = 0; c < n; ++c)
        t.squares[b + r] += (double)me.gram[0][r * t.capacity + c] * (double)me.gram[1][r * t.capacity + c];
  }
}

/* Of the head's tensors, and the last layer's where it is computed for one row: from `slot` on. */
template <class Word>
static int64_t square_last(Trainee& t, const Member& me, int64_t n, int64_t slot) {
  for (int number = first_number(t); number < EC_BLOCK_TENSORS; ++number) {
    const Tensor tensor = tensor_at(t, number);
    const Source source = source_at(t, number);
    if (tensor.vector) {
      if (slot % me.size == me.number)
        t.squares[slot] = square_vector(*tensor.vector, source.y, source.x.data, n);
      ++slot;
    }
    if (!tensor.matrix) continue;
    const Matrix& w = *tensor.matrix;
    if (!w.gradient) {
      square_by_rows(t, me, source.y, w.out, source.x, w.padded, n);
      continue;
    }
    const HeadSheet* heads = by_head(t, number);
    const int64_t some = heads ? t.head : kSquareRows;
    for (int64_t o = 0; o < w.out; o += some, ++slot) {
      if (slot % me.size != me.number) continue;
      const Rows<float> x = heads ? heads->of_head(o / some) : source.x;
      t.squares[slot] = 0;
      const Range outs = {o, o + some < w.out ? o + some : w.out};
      const Rows<float> y = {source.y.data + o, source.y.stride};
      if (number >= EC_LAYER_TENSORS)
        gradient<float>(w, outs, x, y, n, me.words, Square{&t.squares[slot]});
      else
        gradient<Word>(w, outs, x, y, n, me.words, Square{&t.squares[slot]});
    }
  }
  return slot;
}

/* Of layers that are computed for every token, from `slot` on. */
static int64_t square_kept(Trainee& t, const Member& me, int64_t slot) {
  for (int k = 0; k < t.whole; ++k)
    for (int number = 0; number < EC_LAYER_TENSORS; ++number) {
      const Tensor tensor = tensor_of(t.layers[k], number);
      const int64_t outs = tensor.matrix ? tensor.matrix->out : 1;
      for (int64_t o = 0; o < outs; o += kSquareRows, ++slot) {
        if (slot % me.size != me.number) continue;
        const int64_t last = o + kSquareRows < outs ? o + kSquareRows : outs;
        t.squares[slot] =
            tensor.matrix ? square_kept(*tensor.matrix, {o, last}) : square_kept(*tensor.vector);
      }
    }
  return slot;
}

/* Fills the member's share of `squares`. n: of texts. */
template <class Word>
static void square_gradients(Trainee& t, const Member& me, int64_t n) {
  const Range rows = part_of(me, n, 1);
  for (int64_t b = rows.first; b < rows.last; ++b) t.squares[b] = 0;
  for (int64_t slot = square_kept(t, me, square_last<Word>(t, me, n, t.capacity)); slot < t.slots; ++slot)
    if (slot % me.size == me.number) t.squares[slot] = 0;
}

static double norm_of(const Trainee& t, int64_t n) {
  double sum = 0;
  for (int64_t b = 0; b < n; ++b) sum += t.squares[b];
  for (int64_t slot = t.capacity; slot < t.slots; ++slot) sum += t.squares[slot];
  return sqrt(sum > 0 ? sum : (sum < 0 ? 0.0 : sum)); /* rounding may leave less than nothing; NaN stays */
}

}  // namespace EC_ISA

#endif
