/* A rotary encoder's weights, packed for the product kernel once, in one piece of memory. */
#ifndef EMBEDCACHE_ENCODER_ROTARY_MODEL_H
#define EMBEDCACHE_ENCODER_ROTARY_MODEL_H

#include "epilogues.h"
#include "rotary.h"

namespace EC_ISA {

template <class Word>
struct RotaryLayer {
  Linear<Word> query, key, value, output;
  Linear<Word> glu; /* gate and up: kLanes columns of the one, kLanes of the other, and so on */
  Linear<Word> down;
  ec_rotary_layer from; /* its norms, angles and window */
};

template <class Word>
struct RotaryModel {
  ec_rotary_spec spec;
  int64_t padded; /* D, up to a multiple of 32 */
  RotaryLayer<Word>* layers;
};

/* Of a strip's columns the first kLanes are gate's, the others up's. */
static inline void take_gated(const ec_rotary_layer& from, int64_t inner, int64_t column,
                              const ec_linear** part, int64_t* row) {
  const int64_t lane = column % kStrip;
  *part = lane < kLanes ? &from.gate : &from.up;
  *row = column / kStrip * kLanes + lane % kLanes;
  if (*row >= inner) *part = nullptr;
}

template <class Word>
struct RotaryPacker : Packer<Word> {
  using Packer<Word>::arena;

  Linear<Word> take_rotary(const ec_linear& from, int64_t outputs, int64_t inputs) {
    Linear<Word> to = {};
    to.columns = round_up(outputs, kBlock);
    to.words = inputs / kPer<Word>;
    to.weight = this->take_panels(from.weight, outputs, inputs, inputs, 1);
    float* bias = arena.template take<float>(to.columns); /* zero, as all new memory */
    if (arena.memory && from.bias) memcpy(bias, from.bias, (size_t)outputs * sizeof(float));
    to.bias = bias;
    return to;
  }
  Linear<Word> take_glu(const ec_rotary_layer& from, int64_t inner, int64_t dim) {
    Linear<Word> to = {};
    to.columns = round_up(2 * round_up(inner, kLanes), kBlock);
    to.words = dim / kPer<Word>;
    Word* out = arena.template take<Word>(to.columns * to.words);
    float* bias = arena.template take<float>(to.columns);
    to.weight = {out, to.words * kBlock, kBlock};
    to.bias = bias;
    for (int64_t column = 0; arena.memory && column < to.columns; column += kBlock)
      for (int64_t k = 0; k < dim; k += kPer<Word>, out += kBlock) {
        float numbers[2][kBlock] = {};
        for (int c = 0; c < kBlock; ++c) {
          const ec_linear* part;
          int64_t row;
          take_gated(from, inner, column + c, &part, &row);
          for (int j = 0; part && j < kPer<Word>; ++j) numbers[j][c] = part->weight[row * dim + k + j];
          if (part && part->bias) bias[column + c] = part->bias[row];
        }
        pack_row(out, numbers[0], numbers[1]);
      }
    return to;
  }
  void take_layers(RotaryModel<Word>* model) {
    const ec_rotary_spec& spec = model->spec;
    const int64_t queries = spec.heads * spec.head, keys = spec.key_heads * spec.head;
    model->layers = arena.template take<RotaryLayer<Word>>(spec.layers);
    for (int64_t i = 0; i < spec.layers; ++i) {
      const ec_rotary_layer& from = spec.layer[i];
      RotaryLayer<Word> to = {};
      to.query = take_rotary(from.query, queries, spec.dim);
      to.key = take_rotary(from.key, keys, spec.dim);
      to.value = take_rotary(from.value, keys, spec.dim);
      to.output = take_rotary(from.output, spec.dim, queries);
      to.glu = take_glu(from, spec.inner, spec.dim);
      to.down = take_rotary(from.down, spec.dim, spec.inner);
      to.from = from;
      if (arena.memory) model->layers[i] = to;
    }
  }
};

/* NULL: not enough memory. */
template <class Word>
static RotaryModel<Word>* rotary_create(const ec_rotary_spec& spec) {
  RotaryModel<Word> model = {};
  model.spec = spec;
  model.padded = round_up(spec.dim, kBlock);
  RotaryPacker<Word> counting = {};
  counting.arena.template take<RotaryModel<Word>>(1);
  counting.take_layers(&model);
  void* memory = ec::memory_take(counting.arena.used);
  if (!memory) return nullptr;
  RotaryPacker<Word> packing = {};
  packing.arena.memory = static_cast<char*>(memory);
  RotaryModel<Word>* made = packing.arena.template take<RotaryModel<Word>>(1); /* the memory begins with it */
  packing.take_layers(&model);
  *made = model;
  return made;
}

}  // namespace EC_ISA

#endif
