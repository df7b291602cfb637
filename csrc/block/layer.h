/* A layer's parameters, and what a batch leaves behind in it for its way back.
 *
 * 12 bytes a weight, 16 where its gradient is kept.
 */
#ifndef EMBEDCACHE_BLOCK_LAYER_H
#define EMBEDCACHE_BLOCK_LAYER_H

#include "block.h"
#include "dropout.h"
#include "matrix.h"

namespace EC_ISA {

/* Activations of a batch, [rows][stride]. */
struct Sheet {
  float* data;
  int64_t stride;

  void take(Arena& arena, int64_t rows, int64_t padded, int64_t spare = 0) {
    stride = row_stride(padded) + spare;
    data = arena.take<float>(rows * stride + kBlock); /* vectors of a narrow head run over its end */
  }
  float* row(int64_t b) const { return data + b * stride; }
  Rows<float> rows(int64_t b = 0) const { return {row(b), stride}; }
};

template <size_t N>
static void take_sheets(Arena& arena, Sheet* const (&sheets)[N], int64_t rows, int64_t padded,
                        int64_t spare = 0) {
  for (Sheet* s : sheets) s->take(arena, rows, padded, spare);
}

struct Layer {
  Matrix query, key, value, output, up, down;
  Vector query_bias, value_bias, output_bias, norm1, norm1_bias, up_bias, down_bias, norm2, norm2_bias;
  Dropout drop_attention, drop_feed, drop_shares;

  void take(Arena& arena, int64_t dim, int64_t inner) {
    query.take(arena, dim, dim);
    key.take(arena, dim, dim);
    value.take(arena, dim, dim);
    output.take(arena, dim, dim);
    up.take(arena, inner, dim);
    down.take(arena, dim, inner);
    Vector* const wide[] = {&query_bias, &value_bias, &output_bias, &norm1,
                            &norm1_bias, &down_bias,  &norm2,       &norm2_bias};
    for (Vector* v : wide) v->take(arena, dim);
    up_bias.take(arena, inner);
  }
  void take_gradients(Arena& arena) {
    Matrix* const matrices[] = {&query, &key, &value, &output, &up, &down};
    Vector* const vectors[] = {&query_bias, &value_bias, &output_bias, &norm1,     &norm1_bias,
                               &up_bias,    &down_bias,  &norm2,       &norm2_bias};
    for (Matrix* w : matrices) w->gradient = arena.take<float>(w->out * w->padded);
    for (Vector* v : vectors) v->gradient = arena.take<float>(v->padded);
  }
};

/* What a layer computes on its way forward. */
struct Pass {
  bool every_row; /* of each text, or one */
  Sheet x, q, k, v, context, normal1, middle, before_act, act, normal2, out;
  float *scale1, *scale2; /* of the LayerNorms */
};

/* Gradients by: the layer's output, the outputs of `down` with their residual and without, before `act`,
 * `middle`, the outputs of `output` with their residual and without, `context`, q, k and v. */
struct Slopes {
  Sheet out, before2, down, act, middle, before1, output, context, q, k, v;
};

/* ---- The tensors by their numbers, and what their gradients are made of ---- */

struct Tensor {
  Matrix* matrix; /* or */
  Vector* vector;
};

static Tensor tensor_of(Layer& l, int number) {
  switch (number) {
    case EC_BLOCK_QUERY:
      return {&l.query, nullptr};
    case EC_BLOCK_QUERY_BIAS:
      return {nullptr, &l.query_bias};
    case EC_BLOCK_KEY:
      return {&l.key, nullptr};
    case EC_BLOCK_VALUE:
      return {&l.value, nullptr};
    case EC_BLOCK_VALUE_BIAS:
      return {nullptr, &l.value_bias};
    case EC_BLOCK_OUTPUT:
      return {&l.output, nullptr};
    case EC_BLOCK_OUTPUT_BIAS:
      return {nullptr, &l.output_bias};
    case EC_BLOCK_NORM1:
      return {nullptr, &l.norm1};
    case EC_BLOCK_NORM1_BIAS:
      return {nullptr, &l.norm1_bias};
    case EC_BLOCK_UP:
      return {&l.up, nullptr};
    case EC_BLOCK_UP_BIAS:
      return {nullptr, &l.up_bias};
    case EC_BLOCK_DOWN:
      return {&l.down, nullptr};
    case EC_BLOCK_DOWN_BIAS:
      return {nullptr, &l.down_bias};
    case EC_BLOCK_NORM2:
      return {nullptr, &l.norm2};
    default:
      return {nullptr, &l.norm2_bias};
  }
}

/* The gradient of a matrix is sum_b y[b] x[b]', of a vector sum_b y[b], times x[b] where there is one. */
struct Source {
  Rows<float> y, x;
};

/* Of a layer that is computed for some rows; keys and values of one that has them for every row. */
static Source source_of(const Pass& p, const Slopes& d, int number) {
  const Rows<float> none = {nullptr, 0};
  switch (number) {
    case EC_BLOCK_QUERY:
      return {d.q.rows(), p.x.rows()};
    case EC_BLOCK_QUERY_BIAS:
      return {d.q.rows(), none};
    case EC_BLOCK_KEY:
      return {d.k.rows(), p.x.rows()};
    case EC_BLOCK_VALUE:
      return {d.v.rows(), p.x.rows()};
    case EC_BLOCK_VALUE_BIAS:
      return {d.v.rows(), none};
    case EC_BLOCK_OUTPUT:
      return {d.output.rows(), p.context.rows()};
    case EC_BLOCK_OUTPUT_BIAS:
      return {d.output.rows(), none};
    case EC_BLOCK_NORM1:
      return {d.middle.rows(), p.normal1.rows()};
    case EC_BLOCK_NORM1_BIAS:
      return {d.middle.rows(), none};
    case EC_BLOCK_UP:
      return {d.act.rows(), p.middle.rows()};
    case EC_BLOCK_UP_BIAS:
      return {d.act.rows(), none};
    case EC_BLOCK_DOWN:
      return {d.down.rows(), p.act.rows()};
    case EC_BLOCK_DOWN_BIAS:
      return {d.down.rows(), none};
    case EC_BLOCK_NORM2:
      return {d.out.rows(), p.normal2.rows()};
    default:
      return {d.out.rows(), none};
  }
}

}  // namespace EC_ISA

#endif
