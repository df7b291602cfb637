/* The forward half of a step, in phases: a barrier between two, since a row of one needs all columns of the
 * one before. Members share columns where a product has many, heads, or rows.
 *
 * A layer is computed for every token of a batch's texts (rows are tokens, without padding), or, the last
 * one, for one row of each; behind the attention both are the same.
 */
#ifndef EMBEDCACHE_BLOCK_FORWARD_H
#define EMBEDCACHE_BLOCK_FORWARD_H

#include "attention.h"
#include "vectors.h"

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

/* y = x w' + bias, of the outputs `outs`. */
template <class Word>
static void linear(const Pass& p, const Matrix& w, const Vector* bias, Range outs, const Sheet& x, int64_t n,
                   const Sheet& y, const Member& me) {
  if (p.every_row)
    return apply_many<Word>(w, outs, bias ? bias->at.w : nullptr, x.rows(), n, y.data, y.stride, me.words);
  apply<Word>(w, outs, x.rows(), n, y.data, y.stride, me.words);
  if (bias) add_bias(*bias, y, n, whole_blocks(outs));
}

/* x = drop(x) + residual. */
static void finish(const Dropout& drop, int64_t step, const Sheet& x, const Sheet& residual, int64_t n,
                   Range columns) {
  for (int64_t b = 0; b < n; ++b) {
    if (step >= 0) drop_row(drop, (uint32_t)step, b, columns.first, columns.last, x.row(b));
    for (int64_t c = columns.first; c < columns.last; c += kLanes)
      store_unaligned(x.row(b) + c, load_unaligned(x.row(b) + c) + load_unaligned(residual.row(b) + c));
  }
}

/* LayerNorm of the rows: `normal` in place, and what it becomes by weight and bias. */
static void normalize_rows(const Trainee& t, const Sheet& normal, float* scale, const Vector& weight,
                           const Vector& bias, Range rows, const Sheet& out) {
  for (int64_t b = rows.first; b < rows.last; ++b) {
    scale[b] = normalize_row(normal.row(b), t.dim, t.padded, (float)t.shape.epsilon);
    scale_row(normal.row(b), weight.at.w, bias.at.w, t.padded, out.row(b));
  }
}

/* From contexts to the outputs of the member's own rows, n in all. */
template <class Word>
static void forward_feed(const Trainee& t, const Layer& layer, const Pass& p, const Member& me, int64_t n,
                         int64_t step) {
  const Range rows = part_of(me, n, 1), columns = part_of(me, t.dim, kBlock),
              inner = part_of(me, t.inner, kBlock);
  /* 1. The output layer, and what the LayerNorm gets. */
  linear<Word>(p, layer.output, &layer.output_bias, columns, p.context, n, p.normal1, me);
  finish(layer.drop_attention, step, p.normal1, p.x, n, whole_blocks(columns));
  team_barrier(t.team);
  normalize_rows(t, p.normal1, p.scale1, layer.norm1, layer.norm1_bias, rows, p.middle);
  team_barrier(t.team);
  /* 2. The inner layer, before and after its activation: [n][F]. */
  linear<Word>(p, layer.up, &layer.up_bias, inner, p.middle, n, p.before_act, me);
  const Range blocks = whole_blocks(inner);
  for (int64_t b = 0; b < n; ++b)
    for (int64_t c = blocks.first; c < blocks.last; c += kLanes)
      store_unaligned(p.act.row(b) + c,
                      activated(t.shape.activation, load_unaligned(p.before_act.row(b) + c)));
  team_barrier(t.team);
  /* 3. Back to D columns. */
  linear<Word>(p, layer.down, &layer.down_bias, columns, p.act, n, p.normal2, me);
  finish(layer.drop_feed, step, p.normal2, p.middle, n, whole_blocks(columns));
  team_barrier(t.team);
  normalize_rows(t, p.normal2, p.scale2, layer.norm2, layer.norm2_bias, rows, p.out);
}

/* The row that asks: the first token's, or the last one's. */
static void load_first(const Trainee& t, int64_t b) {
  const int64_t n = length_of(t, b);
  if (n > 0)
    load_token(t.read, t.read.begins[b] + query_of(t, n), t.dim, t.padded, t.first.x.row(b));
  else
    clear_tail(t.first.x.row(b), 0, t.padded);
}

/* The last layer for one row of each text; the member's own rows of `out` are there then. */
template <class Word>
static void forward_first(const Trainee& t, const Member& me, int64_t n, int64_t step) {
  const Range rows = part_of(me, n, 1), columns = part_of(me, t.dim, kBlock), heads = heads_of(me, t);
  const Pass& p = t.first;
  const Layer& layer = *t.last;
  for (int64_t b = rows.first; b < rows.last; ++b) load_first(t, b);
  team_barrier(t.team);
  /* 1. Queries [n][D]. */
  linear<Word>(p, layer.query, &layer.query_bias, columns, p.x, n, p.q, me);
  team_barrier(t.team);
  /* 2. The key's weights folded in: [n][heads][D]. */
  for (int64_t h = heads.first; h < heads.last; ++h)
    apply_back<Word>(layer.key, outs_of(t, h), {0, t.padded}, {p.q.data + h * t.head, p.q.stride}, n,
                     Store{t.folded_query.row(0, h), t.folded_query.of_head(h).stride}, me.words);
  team_barrier(t.team);
  /* 3. Shares, and the states' sums by them: [n][heads][D]. */
  for (int64_t b = rows.first; b < rows.last; ++b) attend<Word>(t, me, b, step);
  team_barrier(t.team);
  /* 4. Contexts [n][D]: the value's weights, and its bias as often as the shares say. */
  for (int64_t h = heads.first; h < heads.last; ++h) {
    apply<Word>(layer.value, outs_of(t, h), t.mixed.of_head(h), n, p.context.data, p.context.stride,
                me.words);
    for (int64_t b = 0; b < n; ++b)
      for (int64_t c = h * t.head; c < (h + 1) * t.head; ++c)
        p.context.row(b)[c] += t.share_sum[b * t.heads + h] * layer.value_bias.at.w[c];
  }
  team_barrier(t.team);
  forward_feed<Word>(t, layer, p, me, n, step);
  for (int64_t b = rows.first; b < rows.last; ++b) /* a row without tokens has a vector of zeros */
    if (length_of(t, b) == 0) clear_tail(p.out.row(b), 0, t.padded);
}

/* A layer for every token. n: of texts. */
template <class Word>
static void forward_every(const Trainee& t, const Layer& layer, const Pass& p, const Member& me, int64_t n,
                          int64_t step) {
  const int64_t tokens = t.offsets[n];
  const Range columns = part_of(me, t.dim, kBlock), texts = part_of(me, n, 1);
  linear<Word>(p, layer.query, &layer.query_bias, columns, p.x, tokens, p.q, me);
  linear<Word>(p, layer.key, nullptr, columns, p.x, tokens, p.k, me);
  linear<Word>(p, layer.value, &layer.value_bias, columns, p.x, tokens, p.v, me);
  team_barrier(t.team);
  for (int64_t b = texts.first; b < texts.last; ++b) {
    attend_every_row(heads_in(t), me.every, p, {t.offsets[b], length_of(t, b)}, layer.drop_shares, step);
    for (int64_t i = t.offsets[b]; i < t.offsets[b + 1]; ++i) clear_tail(p.context.row(i), t.dim, t.padded);
  }
  team_barrier(t.team);
  forward_feed<Word>(t, layer, p, me, tokens, step);
  team_barrier(t.team);
}

/* The layers, to the texts' vectors, of the member's own rows. */
template <class Word>
static void forward_layers(const Trainee& t, const Member& me, int64_t n, int64_t step) {
  const Range rows = part_of(me, n, 1);
  if (t.whole > 0) {
    const Tokens from = {t.states.values, t.dim, t.states.dtype, nullptr};
    for (int64_t b = rows.first; b < rows.last; ++b)
      for (int64_t i = 0; i < length_of(t, b); ++i)
        load_token(from, t.states.begins[t.rows[b]] + i, t.dim, t.padded,
                   t.passes[0].x.row(t.offsets[b] + i));
    team_barrier(t.team);
  }
  for (int k = 0; k < t.whole; ++k) forward_every<Word>(t, t.layers[k], t.passes[k], me, n, step);
  if (t.folded)
    forward_first<Word>(t, me, n, step);
  else
    mean_rows(t, rows);
  if (t.shape.unit) unit_rows(t, rows);
}

/* The head, of the member's own rows: logits [n][outputs], in float32. */
static void forward_head(const Trainee& t, const Member& me, Range rows, int64_t step) {
  const int64_t n = rows.last - rows.first, hidden = round_up(t.hidden, kBlock);
  const Sheet& x = t.first.out;
  if (n == 0) return;
  if (t.hidden) {
    apply<float>(t.head1, {0, t.hidden}, x.rows(rows.first), n, t.rectified.row(rows.first),
                 t.rectified.stride, me.words);
    for (int64_t b = rows.first; b < rows.last; ++b) {
      for (int64_t c = 0; c < hidden; c += kLanes) {
        float* at = t.rectified.row(b) + c;
        store_unaligned(at, relu(load_unaligned(at) + load_unaligned(t.head1_bias.at.w + c)));
      }
      if (step >= 0) drop_row(t.drop_hidden, (uint32_t)step, b, 0, hidden, t.rectified.row(b));
    }
  }
  apply<float>(t.head2, {0, t.outputs}, t.hidden ? t.rectified.rows(rows.first) : x.rows(rows.first), n,
               t.logits.row(rows.first), t.logits.stride, me.words);
  for (int64_t b = rows.first; b < rows.last; ++b)
    for (int64_t c = 0; c < t.outputs; ++c) t.logits.row(b)[c] += t.head2_bias.at.w[c];
}

}  // namespace EC_ISA

#endif
