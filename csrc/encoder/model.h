/* An encoder's weights, packed for the product kernel once, in one piece of memory. */
#ifndef EMBEDCACHE_ENCODER_MODEL_H
#define EMBEDCACHE_ENCODER_MODEL_H

#include "../simd/arena.h"
#include "functions.h"
#include "int8.h"

namespace EC_ISA {

#ifdef EC_INT8
constexpr bool kInt8 = true; /* whether linear layers may be int8 */
#else
constexpr bool kInt8 = false;
#endif

template <class Word>
struct Linear {
  Panels<Word> weight;
  const float* bias; /* [columns] */
  int64_t columns;   /* outputs, up to a multiple of 32: zeros */
  int64_t words;     /* inputs */
  QuadPanels quads;  /* in place of `weight`, where it has data: int8 */

  bool is_int8() const { return kInt8 && quads.data; }
};

/* What queries and keys of each head are multiplied by, a column for each bucket of distances. */
template <class Word>
struct Distances {
  Panels<Word>*key, *query; /* [heads], from a head to the buckets; NULL: there are none */
};

template <class Word>
struct Layer {
  Linear<Word> qkv; /* three parts of `padded` columns */
  Linear<Word> output, up, down;
  ec_norm norm1, norm2;
  Distances<Word> distances;
};

/* The last layer, for the first row of each sequence alone (last_layer.h). */
template <class Word>
struct FirstRow {
  Linear<Word> query;
  Panels<Word>* key;   /* [heads], transposed: from a head's query to D columns; without the bias */
  Panels<Word>* value; /* [heads], from D to a head's columns */
  const float* value_bias;
};

template <class Word>
struct Model {
  ec_encoder_spec spec;
  void* memory;
  int64_t dim, padded; /* D, and up to a multiple of 32 */
  int64_t inner, heads, head;
  float scale;
  Linear<Word> projection; /* if it has one */
  Layer<Word>* layers;
  FirstRow<Word> first; /* unless scores depend on distances by content */

  /* The bucket of distance 0, others before and behind it; NULL: there are none. */
  const int32_t* buckets() const { return spec.bucket ? spec.bucket + spec.positions - 1 : nullptr; }
  bool has_projection() const { return spec.projection.weight != nullptr; }
  /* What is added to the scores of a query, from key 0 on; NULL: nothing. */
  const float* relative_to(int64_t h, int64_t query) const {
    return spec.relative ? spec.relative + h * (2 * spec.positions - 1) + spec.positions - 1 - query
                         : nullptr;
  }
};

/* Whether two layers are the same matrices, in the same form. */
static inline bool is_same(const ec_layer& x, const ec_layer& y) {
  return !memcmp(&x, &y, offsetof(ec_layer, kept)) && x.kept == y.kept;
}

/* Takes the memory of every weight, and fills it once the arena has some. */
template <class Word>
struct Packer {
  Arena arena;
  float* row; /* of weights, while they become int8 */
  SpilledRows row_quads;

  float* take_bias(const float* bias, int64_t n, int64_t columns) {
    float* out = arena.take<float>(columns);
    for (int64_t i = 0; arena.memory && i < columns; ++i) out[i] = i < n ? bias[i] : 0.0f;
    return out;
  }
  Panels<Word> take_panels(const float* source, int64_t columns, int64_t k, int64_t column_step,
                           int64_t k_step) {
    Word* out = arena.take<Word>(words_of_pack<Word>(columns, k));
    if (arena.memory) return pack<Word>(out, source, columns, k, column_step, k_step);
    return {};
  }
  /* Linear layers of as many inputs side by side: their panels follow each other in memory. */
  QuadPanels take_quads(const float* const* weights, int n, int64_t outputs, int64_t inputs) {
    const int64_t columns = round_up(outputs, kBlock), words = columns * (round_up(inputs, kQuad) / kQuad);
    Quad* out = arena.take<Quad>(n * words);
    float* scale = arena.take<float>(n * columns);
    const int64_t totals = n * columns, parts = round_up(inputs, kSumPart) / kSumPart;
    int32_t* total = arena.take<int32_t>(parts * totals);
    if (arena.memory) memset(total, 0, (size_t)(parts * totals) * sizeof(int32_t));
    QuadPanels made = {};
    for (int p = n - 1; arena.memory && p >= 0; --p) {
      for (int64_t i = inputs; i < round_up(inputs, kBlock); ++i) row[i] = 0.0f;
      made = pack_quads(out + p * words, scale + p * columns, total + p * columns, totals, weights[p],
                        outputs, inputs, row, row_quads);
    }
    return made;
  }
  Linear<Word> take_linear(const ec_linear& from, int64_t outputs, int64_t inputs, bool int8 = false) {
    Linear<Word> to = {};
    to.columns = round_up(outputs, kBlock);
    to.words = inputs / kPer<Word>;
    if (int8)
      to.quads = take_quads(&from.weight, 1, outputs, inputs);
    else
      to.weight = take_panels(from.weight, outputs, inputs, inputs, 1);
    to.bias = take_bias(from.bias, outputs, to.columns);
    return to;
  }
  /* Query, key and value side by side: their panels follow each other in memory. */
  Linear<Word> take_qkv(const ec_layer& from, int64_t dim, bool int8) {
    const ec_linear* parts[] = {&from.query, &from.key, &from.value};
    const float* weights[] = {from.query.weight, from.key.weight, from.value.weight};
    Linear<Word> to = {};
    const int64_t each = round_up(dim, kBlock), words = words_of_pack<Word>(dim, dim);
    if (int8) {
      to.quads = take_quads(weights, 3, dim, dim);
    } else {
      Word* out = arena.take<Word>(3 * words);
      for (int p = 0; arena.memory && p < 3; ++p)
        pack<Word>(out + p * words, parts[p]->weight, dim, dim, dim, 1);
      to.weight = {out, dim / kPer<Word> * kBlock, kBlock};
    }
    float* bias = arena.take<float>(3 * each);
    for (int p = 0; arena.memory && p < 3; ++p)
      for (int64_t i = 0; i < each; ++i) bias[p * each + i] = i < dim ? parts[p]->bias[i] : 0.0f;
    to.bias = bias;
    to.columns = 3 * each;
    to.words = dim / kPer<Word>;
    return to;
  }
  /* [heads] panels of one product with [buckets][dim]. */
  Panels<Word>* take_heads(const float* source, int64_t buckets, const Model<Word>& model) {
    Panels<Word>* to = arena.take<Panels<Word>>(model.heads);
    for (int64_t h = 0; h < model.heads; ++h) {
      const Panels<Word> one = take_panels(source + h * model.head, buckets, model.head, model.dim, 1);
      if (arena.memory) to[h] = one;
    }
    return to;
  }
  FirstRow<Word> take_first_row(const ec_layer& from, const Model<Word>& model) {
    FirstRow<Word> to;
    const int64_t dim = model.dim, head = model.head;
    to.query = take_linear(from.query, dim, dim);
    to.key = arena.take<Panels<Word>>(model.heads);
    to.value = arena.take<Panels<Word>>(model.heads);
    for (int64_t h = 0; h < model.heads; ++h) {
      const Panels<Word> key = take_panels(from.key.weight + h * head * dim, dim, head, 1, dim);
      const Panels<Word> value = take_panels(from.value.weight + h * head * dim, head, dim, dim, 1);
      if (arena.memory) to.key[h] = key, to.value[h] = value;
    }
    to.value_bias = take_bias(from.value.bias, dim, round_up(dim, kBlock) + kBlock);
    return to;
  }
  void take_all(Model<Word>* model) {
    const ec_encoder_spec& spec = model->spec;
    if (kInt8) {
      const int64_t most = larger(spec.dim, spec.inner);
      row = arena.take<float>(round_up(most, kBlock));
      row_quads.take(&arena, 1, most);
    }
    if (model->has_projection()) model->projection = take_linear(spec.projection, spec.dim, spec.width);
    model->layers = arena.take<Layer<Word>>(spec.layers);
    for (int64_t i = 0; i < spec.layers; ++i) {
      const ec_layer& from = spec.layer[i];
      /* Layers that share their weights, as ALBERT's, are packed once. */
      int64_t same = 0;
      while (same < i && !is_same(spec.layer[same], from)) ++same;
      if (same < i) {
        if (arena.memory) model->layers[i] = model->layers[same];
        continue;
      }
      Layer<Word> to;
      const int32_t quads = kInt8 ? ~from.kept : 0;
      to.qkv = take_qkv(from, spec.dim, quads & EC_KEEP_QKV);
      to.output = take_linear(from.output, spec.dim, spec.dim, quads & EC_KEEP_OUTPUT);
      to.up = take_linear(from.up, spec.inner, spec.dim, quads & EC_KEEP_UP);
      to.down = take_linear(from.down, spec.dim, spec.inner, quads & EC_KEEP_DOWN);
      to.norm1 = from.norm1;
      to.norm2 = from.norm2;
      to.distances = {};
      if (spec.bucket)
        to.distances = {take_heads(from.distance_key, spec.buckets, *model),
                        take_heads(from.distance_query, spec.buckets, *model)};
      if (arena.memory) model->layers[i] = to;
    }
    if (!spec.bucket) model->first = take_first_row(spec.layer[spec.layers - 1], *model);
  }
};

/* NULL: not enough memory. */
template <class Word>
static Model<Word>* model_create(const ec_encoder_spec& spec) {
  Model<Word> model = {};
  model.spec = spec;
  model.dim = spec.dim;
  model.padded = round_up(spec.dim, kBlock);
  model.inner = spec.inner;
  model.heads = spec.heads;
  model.head = spec.dim / spec.heads;
  /* Of three products with content, where there are the two with distances. */
  model.scale = 1.0f / sqrtf((float)model.head * (spec.bucket ? 3.0f : 1.0f));
  Packer<Word> counting = {};
  counting.arena.template take<Model<Word>>(1);
  counting.take_all(&model);
  void* memory = ec::memory_take(counting.arena.used);
  if (!memory) return nullptr;
  Packer<Word> packing = {};
  packing.arena.memory = static_cast<char*>(memory);
  Model<Word>* made = packing.arena.template take<Model<Word>>(1);
  packing.take_all(&model);
  model.memory = memory;
  *made = model;
  return made;
}

}  // namespace EC_ISA

#endif
