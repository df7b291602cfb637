/* The way back of a step, to the gradients by every product's output; those by the weights are update.h's.
 * docs/engine.md has the algebra.
 */
#ifndef EMBEDCACHE_BLOCK_BACKWARD_H
#define EMBEDCACHE_BLOCK_BACKWARD_H

#include "forward.h"

namespace EC_ISA {

/* From the gradient by the logits to that by what the second LayerNorm got, of the member's own rows. */
static void back_from_head(const Trainee& t, const Member& me, Range rows, int64_t step) {
  const int64_t n = rows.last - rows.first, hidden = round_up(t.hidden, kBlock);
  if (n == 0) return;
  const Sheet& below = t.hidden ? t.d_rectified : t.d_out;
  apply_back<float>(t.head2, {0, t.outputs}, {0, t.head2.padded}, t.logits.rows(rows.first), n,
                    below.row(rows.first), below.stride, me.words);
  if (t.hidden) {
    const vf scale = splat(t.drop_hidden.threshold ? t.drop_hidden.scale : 1.0f);
    for (int64_t b = rows.first; b < rows.last; ++b)
      for (int64_t c = 0; c < hidden; c += kLanes) {
        float* at = t.d_rectified.row(b) + c;
        store_unaligned(at,
                        where_positive(load_unaligned(t.rectified.row(b) + c), load_unaligned(at) * scale));
      }
    apply_back<float>(t.head1, {0, t.hidden}, {0, t.padded}, t.d_rectified.rows(rows.first), n,
                      t.d_out.row(rows.first), t.d_out.stride, me.words);
  }
  for (int64_t b = rows.first; b < rows.last; ++b) {
    if (length_of(t, t.rows[b]) == 0) clear_tail(t.d_out.row(b), 0, t.padded);
    normalize_back(t.d_out.row(b), t.normal2.row(b), t.norm2.at.w, t.scale2[b], t.dim, t.padded,
                   t.d_before2.row(b));
    memcpy(t.d_down.row(b), t.d_before2.row(b), (size_t)t.padded * sizeof(float));
    drop_row(t.drop_feed, (uint32_t)step, b, 0, t.padded, t.d_down.row(b));
  }
}

/* To the gradient by the outputs of the attention's output layer. */
template <class Word>
static void back_through_feed(const Trainee& t, const Member& me, int64_t n, int64_t step) {
  const Range rows = part_of(me, n, 1), columns = part_of(me, t.padded, kBlock),
              inner = part_of(me, round_up(t.inner, kBlock), kBlock);
  apply_back<Word>(t.down, {0, t.dim}, inner, t.d_down.rows(), n, t.d_act.data, t.d_act.stride, me.words);
  for (int64_t b = 0; b < n; ++b)
    for (int64_t c = inner.first; c < inner.last; c += kLanes) {
      float* at = t.d_act.row(b) + c;
      store_unaligned(at, load_unaligned(at) *
                              activation_slope(t.shape.activation, load_unaligned(t.before_act.row(b) + c)));
    }
  team_barrier(t.team);
  apply_back<Word>(t.up, {0, t.inner}, columns, t.d_act.rows(), n, t.d_middle.data, t.d_middle.stride,
                   me.words);
  for (int64_t b = 0; b < n; ++b)
    for (int64_t c = columns.first; c < columns.last; c += kLanes) {
      float* at = t.d_middle.row(b) + c;
      store_unaligned(at, load_unaligned(at) + load_unaligned(t.d_before2.row(b) + c));
    }
  team_barrier(t.team);
  for (int64_t b = rows.first; b < rows.last; ++b) {
    normalize_back(t.d_middle.row(b), t.normal1.row(b), t.norm1.at.w, t.scale1[b], t.dim, t.padded,
                   t.d_output.row(b));
    drop_row(t.drop_attention, (uint32_t)step, b, 0, t.padded, t.d_output.row(b));
  }
  team_barrier(t.team);
}

/* To the gradients by contexts, sums, folded queries and queries. */
template <class Word>
static void back_through_attention(const Trainee& t, const Member& me, int64_t n) {
  const Range rows = part_of(me, n, 1), columns = part_of(me, t.padded, kBlock), heads = heads_of(me, t);
  apply_back<Word>(t.output, {0, t.dim}, columns, t.d_output.rows(), n, t.d_context.data, t.d_context.stride,
                   me.words);
  team_barrier(t.team);
  /* 1. By each head's sum of states; by the value's bias, which every share's sum multiplies. */
  for (int64_t h = heads.first; h < heads.last; ++h) {
    apply_back<Word>(t.value, outs_of(t, h), {0, t.padded},
                     {t.d_context.data + h * t.head, t.d_context.stride}, n, t.folded.row(0, h),
                     t.folded.of_head(h).stride, me.words);
    for (int64_t b = 0; b < n; ++b)
      for (int64_t c = h * t.head; c < (h + 1) * t.head; ++c)
        t.d_value_bias.row(b)[c] = t.d_context.row(b)[c] * t.share_sum[b * t.heads + h];
  }
  team_barrier(t.team);
  /* 2. Through the softmax. */
  for (int64_t b = rows.first; b < rows.last; ++b) {
    float* each = me.each;
    for (int64_t h = 0; h < t.heads; ++h) {
      each[h] = 0.0f;
      for (int64_t c = h * t.head; c < (h + 1) * t.head; ++c)
        each[h] += t.d_context.row(b)[c] * t.value_bias.at.w[c];
    }
    attend_back<Word>(t, me, b, each);
  }
  team_barrier(t.team);
  /* 3. By the queries. */
  for (int64_t h = heads.first; h < heads.last; ++h)
    apply<Word>(t.key, outs_of(t, h), t.folded.of_head(h), n, t.d_q.data, t.d_q.stride, me.words);
  team_barrier(t.team);
}

}  // namespace EC_ISA

#endif
