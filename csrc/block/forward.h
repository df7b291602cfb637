/* The forward half of a step, in phases: a barrier between two, since a row of one needs all columns of the
 * one before. Members share columns where a product has many, heads, or rows.
 */
#ifndef EMBEDCACHE_BLOCK_FORWARD_H
#define EMBEDCACHE_BLOCK_FORWARD_H

#include "attention.h"

namespace EC_ISA {

static Range heads_of(const Member& me, const Trainee& t) { return part_of(me, t.heads, 1); }
static Range outs_of(const Trainee& t, int64_t h) { return {h * t.head, (h + 1) * t.head}; }

static void add_bias(const Vector& bias, const Sheet& x, int64_t n, Range columns) {
  for (int64_t b = 0; b < n; ++b)
    for (int64_t c = columns.first; c < columns.last; c += kLanes) {
      float* at = x.row(b) + c;
      store_unaligned(at, load_unaligned(at) + load_unaligned(bias.at.w + c));
    }
}

/* The columns of a part up to a whole block: nobody else's, and zeros. */
static Range whole_blocks(Range part) { return {part.first, round_up(part.last, kBlock)}; }

/* x = drop(x + bias) + residual. */
static void finish(const Vector& bias, const Dropout& drop, int64_t step, const Sheet& x,
                   const Sheet& residual, int64_t n, Range columns) {
  add_bias(bias, x, n, columns);
  for (int64_t b = 0; b < n; ++b) {
    if (step >= 0) drop_row(drop, (uint32_t)step, b, columns.first, columns.last, x.row(b));
    for (int64_t c = columns.first; c < columns.last; c += kLanes)
      store_unaligned(x.row(b) + c, load_unaligned(x.row(b) + c) + load_unaligned(residual.row(b) + c));
  }
}

/* The row that asks: the first token's, or the last one's. */
static void load_first(const Trainee& t, int64_t b) {
  const int64_t row = t.rows[b], n = length_of(t, row);
  const int64_t token = t.states.begins[row] + (t.shape.query == EC_QUERY_LAST ? n - 1 : 0);
  if (n > 0)
    load_token(t.states, token, t.padded, t.first.row(b));
  else
    clear_tail(t.first.row(b), 0, t.padded);
}

template <class Word>
static void forward_attention(const Trainee& t, const Member& me, int64_t n, int64_t step) {
  const Range rows = part_of(me, n, 1), columns = part_of(me, t.dim, kBlock), heads = heads_of(me, t);
  for (int64_t b = rows.first; b < rows.last; ++b) load_first(t, b);
  team_barrier(t.team);
  /* 1. Queries [n][D]. */
  apply<Word>(t.query, columns, t.first.rows(), n, t.q.data, t.q.stride, me.words);
  add_bias(t.query_bias, t.q, n, whole_blocks(columns));
  team_barrier(t.team);
  /* 2. The key's weights folded in: [n][heads][D]. */
  for (int64_t h = heads.first; h < heads.last; ++h)
    apply_back<Word>(t.key, outs_of(t, h), {0, t.padded}, {t.q.data + h * t.head, t.q.stride}, n,
                     t.folded.row(0, h), t.folded.of_head(h).stride, me.words);
  team_barrier(t.team);
  /* 3. Shares, and the states' sums by them: [n][heads][D]. */
  for (int64_t b = rows.first; b < rows.last; ++b) attend<Word>(t, me, b, step);
  team_barrier(t.team);
  /* 4. Contexts [n][D]: the value's weights, and its bias as often as the shares say. */
  for (int64_t h = heads.first; h < heads.last; ++h) {
    apply<Word>(t.value, outs_of(t, h), t.mixed.of_head(h), n, t.context.data, t.context.stride, me.words);
    for (int64_t b = 0; b < n; ++b)
      for (int64_t c = h * t.head; c < (h + 1) * t.head; ++c)
        t.context.row(b)[c] += t.share_sum[b * t.heads + h] * t.value_bias.at.w[c];
  }
  team_barrier(t.team);
  /* 5. The output layer, and what the LayerNorm gets. */
  apply<Word>(t.output, columns, t.context.rows(), n, t.normal1.data, t.normal1.stride, me.words);
  finish(t.output_bias, t.drop_attention, step, t.normal1, t.first, n, whole_blocks(columns));
  team_barrier(t.team);
  for (int64_t b = rows.first; b < rows.last; ++b) {
    t.scale1[b] = normalize_row(t.normal1.row(b), t.dim, t.padded, (float)t.shape.epsilon);
    scale_row(t.normal1.row(b), t.norm1.at.w, t.norm1_bias.at.w, t.padded, t.middle.row(b));
  }
  team_barrier(t.team);
}

template <class Word>
static void forward_feed(const Trainee& t, const Member& me, int64_t n, int64_t step) {
  const Range rows = part_of(me, n, 1), columns = part_of(me, t.dim, kBlock),
              inner = part_of(me, t.inner, kBlock);
  /* 1. The inner layer, before and after its activation: [n][F]. */
  apply<Word>(t.up, inner, t.middle.rows(), n, t.before_act.data, t.before_act.stride, me.words);
  const Range blocks = whole_blocks(inner);
  add_bias(t.up_bias, t.before_act, n, blocks);
  for (int64_t b = 0; b < n; ++b)
    for (int64_t c = blocks.first; c < blocks.last; c += kLanes)
      store_unaligned(t.act.row(b) + c,
                      activated(t.shape.activation, load_unaligned(t.before_act.row(b) + c)));
  team_barrier(t.team);
  /* 2. Back to D columns. */
  apply<Word>(t.down, columns, t.act.rows(), n, t.normal2.data, t.normal2.stride, me.words);
  finish(t.down_bias, t.drop_feed, step, t.normal2, t.middle, n, whole_blocks(columns));
  team_barrier(t.team);
  /* 3. The block's vectors; of a row without tokens zeros. */
  for (int64_t b = rows.first; b < rows.last; ++b) {
    t.scale2[b] = normalize_row(t.normal2.row(b), t.dim, t.padded, (float)t.shape.epsilon);
    scale_row(t.normal2.row(b), t.norm2.at.w, t.norm2_bias.at.w, t.padded, t.out.row(b));
    if (length_of(t, t.rows[b]) == 0) clear_tail(t.out.row(b), 0, t.padded);
  }
}

/* The head, of the member's own rows: logits [n][outputs], in float32. */
static void forward_head(const Trainee& t, const Member& me, Range rows, int64_t step) {
  const int64_t n = rows.last - rows.first, hidden = round_up(t.hidden, kBlock);
  if (n == 0) return;
  if (t.hidden) {
    apply<float>(t.head1, {0, t.hidden}, t.out.rows(rows.first), n, t.rectified.row(rows.first),
                 t.rectified.stride, me.words);
    for (int64_t b = rows.first; b < rows.last; ++b) {
      for (int64_t c = 0; c < hidden; c += kLanes) {
        float* at = t.rectified.row(b) + c;
        store_unaligned(at, relu(load_unaligned(at) + load_unaligned(t.head1_bias.at.w + c)));
      }
      if (step >= 0) drop_row(t.drop_hidden, (uint32_t)step, b, 0, hidden, t.rectified.row(b));
    }
  }
  apply<float>(t.head2, {0, t.outputs}, t.hidden ? t.rectified.rows(rows.first) : t.out.rows(rows.first), n,
               t.logits.row(rows.first), t.logits.stride, me.words);
  for (int64_t b = rows.first; b < rows.last; ++b)
    for (int64_t c = 0; c < t.outputs; ++c) t.logits.row(b)[c] += t.head2_bias.at.w[c];
}

}  // namespace EC_ISA

#endif
