/* The way back of a step, to the gradients by every product's output, and of layers for every token to those
 * by their weights, which are kept; those of the last layer for one row, and of the head, are clip.h's and
 * train.h's. docs/engine.md has the algebra.
 */
#ifndef EMBEDCACHE_BLOCK_BACKWARD_H
#define EMBEDCACHE_BLOCK_BACKWARD_H

#include "forward.h"

namespace EC_ISA {

/* From the gradient by the logits to that by the texts' vectors, and through them to that by the last layer's
 * output, of the member's own rows. */
static void back_from_head(const Trainee& t, const Member& me, Range rows) {
  const int64_t n = rows.last - rows.first, hidden = round_up(t.hidden, kBlock);
  const Sheet& out = t.first_back.out;
  if (n == 0) return;
  const Sheet& below = t.hidden ? t.rectified_back : out;
  apply_back<float>(t.head2, {0, t.outputs}, {0, t.head2.padded}, t.logits.rows(rows.first), n,
                    Store{below.row(rows.first), below.stride}, me.words);
  if (t.hidden) {
    const vf scale = splat(t.drop_hidden.threshold ? t.drop_hidden.scale : 1.0f);
    for (int64_t b = rows.first; b < rows.last; ++b)
      for (int64_t c = 0; c < hidden; c += kLanes) {
        float* at = t.rectified_back.row(b) + c;
        store_unaligned(at,
                        where_positive(load_unaligned(t.rectified.row(b) + c), load_unaligned(at) * scale));
      }
    apply_back<float>(t.head1, {0, t.hidden}, {0, t.padded}, t.rectified_back.rows(rows.first), n,
                      Store{out.row(rows.first), out.stride}, me.words);
  }
  for (int64_t b = rows.first; b < rows.last; ++b)
    if (length_of(t, b) == 0) clear_tail(out.row(b), 0, t.padded);
  if (t.shape.unit) unit_rows_back(t, rows);
  if (!t.folded) mean_rows_back(t, rows);
}

/* From the gradient by the layer's output to those by what the second LayerNorm got and by `down`. */
static void back_from_norm2(const Trainee& t, const Layer& layer, const Pass& p, const Slopes& d, Range rows,
                            int64_t step) {
  for (int64_t b = rows.first; b < rows.last; ++b) {
    normalize_back(d.out.row(b), p.normal2.row(b), layer.norm2.at.w, p.scale2[b], t.dim, t.padded,
                   d.before2.row(b));
    memcpy(d.down.row(b), d.before2.row(b), (size_t)t.padded * sizeof(float));
    drop_row(layer.drop_feed, (uint32_t)step, b, 0, t.padded, d.down.row(b));
  }
}

template <class Word>
static void linear_back(const Pass& p, const Matrix& w, Range ins, const Sheet& y, int64_t n, const Sheet& x,
                        const Member& me) {
  if (p.every_row)
    apply_back_many<Word>(w, ins, y.rows(), n, x.data, x.stride, me.words);
  else
    apply_back<Word>(w, {0, w.out}, ins, y.rows(), n, Store{x.data, x.stride}, me.words);
}

/* From the gradient by `before_act`'s activation to its own; of every token the activation is made again, for
 * the gradient by `down`'s weights. */
static void activation_back(const Trainee& t, const Pass& p, const Slopes& d, int64_t n, Range inner) {
  for (int64_t b = 0; b < n; ++b)
    for (int64_t c = inner.first; c < inner.last; c += kLanes) {
      float* at = d.act.row(b) + c;
      const vf x = load_unaligned(p.before_act.row(b) + c);
      store_unaligned(at, load_unaligned(at) * activation_slope(t.shape.activation, x));
      if (p.every_row) store_unaligned(p.act.row(b) + c, activated(t.shape.activation, x));
    }
}

/* To the gradient by contexts, through the output layer. */
template <class Word>
static void back_through_feed(const Trainee& t, const Layer& layer, const Pass& p, const Slopes& d,
                              const Member& me, int64_t n, int64_t step) {
  const Range rows = part_of(me, n, 1), columns = part_of(me, t.padded, kBlock),
              inner = part_of(me, round_up(t.inner, kBlock), kBlock);
  linear_back<Word>(p, layer.down, inner, d.down, n, d.act, me);
  activation_back(t, p, d, n, inner);
  team_barrier(t.team);
  linear_back<Word>(p, layer.up, columns, d.act, n, d.middle, me);
  for (int64_t b = 0; b < n; ++b)
    for (int64_t c = columns.first; c < columns.last; c += kLanes) {
      float* at = d.middle.row(b) + c;
      store_unaligned(at, load_unaligned(at) + load_unaligned(d.before2.row(b) + c));
    }
  team_barrier(t.team);
  for (int64_t b = rows.first; b < rows.last; ++b) {
    normalize_back(d.middle.row(b), p.normal1.row(b), layer.norm1.at.w, p.scale1[b], t.dim, t.padded,
                   d.output.row(b));
    if (t.whole > 0) memcpy(d.before1.row(b), d.output.row(b), (size_t)t.padded * sizeof(float));
    drop_row(layer.drop_attention, (uint32_t)step, b, 0, t.padded, d.output.row(b));
  }
  team_barrier(t.team);
  linear_back<Word>(p, layer.output, columns, d.output, n, d.context, me);
  team_barrier(t.team);
}

/* Of the last layer for one row, to the gradients by sums, folded queries and queries. */
template <class Word>
static void back_through_folded(const Trainee& t, const Member& me, int64_t n) {
  const Range rows = part_of(me, n, 1), heads = heads_of(me, t);
  const Layer& layer = *t.last;
  const Slopes& d = t.first_back;
  /* 1. By each head's sum of states; by the value's bias, which every share's sum multiplies. */
  for (int64_t h = heads.first; h < heads.last; ++h) {
    apply_back<Word>(layer.value, outs_of(t, h), {0, t.padded},
                     {d.context.data + h * t.head, d.context.stride}, n,
                     Store{t.mixed_back.row(0, h), t.mixed_back.of_head(h).stride}, me.words);
    for (int64_t b = 0; b < n; ++b)
      for (int64_t c = h * t.head; c < (h + 1) * t.head; ++c)
        t.value_bias_back.row(b)[c] = d.context.row(b)[c] * t.share_sum[b * t.heads + h];
  }
  team_barrier(t.team);
  /* 2. Through the softmax. */
  for (int64_t b = rows.first; b < rows.last; ++b) {
    float* each = me.each;
    for (int64_t h = 0; h < t.heads; ++h) {
      each[h] = 0.0f;
      for (int64_t c = h * t.head; c < (h + 1) * t.head; ++c)
        each[h] += d.context.row(b)[c] * layer.value_bias.at.w[c];
    }
    attend_back<Word>(t, me, b, each);
  }
  team_barrier(t.team);
  /* 3. By the queries. */
  for (int64_t h = heads.first; h < heads.last; ++h)
    apply<Word>(layer.key, outs_of(t, h), t.folded_query.of_head(h), n, d.q.data, d.q.stride, me.words);
  team_barrier(t.team);
}

/* What the row that asked adds to the gradient by its state: by the query's weights, and the residual. */
template <class Word>
static void back_to_first_state(const Trainee& t, const Member& me, int64_t n) {
  const Slopes& d = t.first_back;
  const Range rows = part_of(me, n, 1);
  apply_back<Word>(t.last->query, {0, t.dim}, part_of(me, t.padded, kBlock), d.q.rows(), n,
                   Put{d.before1.data, d.before1.stride, nullptr, true}, me.words);
  team_barrier(t.team);
  for (int64_t b = rows.first; b < rows.last; ++b) {
    const int64_t tokens = length_of(t, b);
    if (tokens == 0) continue;
    float* at = t.tokens_back.out.row(t.offsets[b] + query_of(t, tokens));
    for (int64_t c = 0; c < t.padded; c += kLanes)
      store_unaligned(at + c, load_unaligned(at + c) + load_unaligned(d.before1.row(b) + c));
  }
  team_barrier(t.team);
}

template <class Word>
static void back_through_first(const Trainee& t, const Member& me, int64_t n, int64_t step) {
  back_through_feed<Word>(t, *t.last, t.first, t.first_back, me, n, step);
  back_through_folded<Word>(t, me, n);
  if (t.whole > 0) back_to_first_state<Word>(t, me, n);
}

/* The gradients by a layer's weights, kept. n: tokens. */
template <class Word>
static void keep_gradients(Layer& layer, const Pass& p, const Slopes& d, const Member& me, int64_t n) {
  for (int number = 0; number < EC_LAYER_TENSORS; ++number) {
    const Tensor tensor = tensor_of(layer, number);
    const Source source = source_of(p, d, number);
    if (tensor.vector && number % me.size == me.number)
      keep_gradient(*tensor.vector, source.y, source.x.data, n);
    if (tensor.matrix)
      keep_gradient<Word>(*tensor.matrix, part_of(me, tensor.matrix->out, kRows), source.x, source.y, n,
                          me.words);
  }
}

/* A layer for every token: from the gradient by its output to those by its weights, and unless it is the
 * lowest that by what it reads, in the place of the former. n: of texts. */
template <class Word>
static void back_through_every(const Trainee& t, int k, const Member& me, int64_t n, int64_t step) {
  const int64_t tokens = t.offsets[n];
  const Range columns = part_of(me, t.padded, kBlock), texts = part_of(me, n, 1);
  Layer& layer = t.layers[k];
  const Pass& p = t.passes[k];
  const Slopes& d = t.tokens_back;
  back_from_norm2(t, layer, p, d, part_of(me, tokens, 1), step);
  team_barrier(t.team);
  back_through_feed<Word>(t, layer, p, d, me, tokens, step);
  for (int64_t b = texts.first; b < texts.last; ++b) {
    attend_every_row_back(heads_in(t), me.every, p, d, {t.offsets[b], length_of(t, b)}, layer.drop_shares,
                          step);
    const Sheet sheets[] = {d.q, d.k, d.v};
    for (const Sheet& s : sheets)
      for (int64_t i = t.offsets[b]; i < t.offsets[b + 1]; ++i) clear_tail(s.row(i), t.dim, t.padded);
  }
  team_barrier(t.team);
  keep_gradients<Word>(layer, p, d, me, tokens);
  team_barrier(t.team);
  if (k == 0) return;
  apply_back_many<Word>(layer.query, columns, d.q.rows(), tokens, d.out.data, d.out.stride, me.words);
  apply_back_many<Word>(layer.key, columns, d.k.rows(), tokens, d.out.data, d.out.stride, me.words, true);
  apply_back_many<Word>(layer.value, columns, d.v.rows(), tokens, d.out.data, d.out.stride, me.words, true);
  for (int64_t i = 0; i < tokens; ++i)
    for (int64_t c = columns.first; c < columns.last; c += kLanes)
      store_unaligned(d.out.row(i) + c,
                      load_unaligned(d.out.row(i) + c) + load_unaligned(d.before1.row(i) + c));
  team_barrier(t.team);
}

}  // namespace EC_ISA

#endif
