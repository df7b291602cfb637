/* One batch of rows through the encoder, on one thread: embeddings, layers, pooling. Rows lie one after
 * another without padding.
 *
 * Touches, for T tokens: x, the float32 residual (4 T D bytes), its rounded copy, queries, keys and values (3
 * T D words), contexts, and the inner row of kInnerRows tokens; all the weights once a block of rows. Bound
 * by the FMA units while T is some hundreds, and by reading the weights below that.
 */
#ifndef EMBEDCACHE_ENCODER_FORWARD_H
#define EMBEDCACHE_ENCODER_FORWARD_H

#include "blocks.h"
#include "last_layer.h"
#include "poolings.h"

namespace EC_ISA {

template <class Word>
struct Pass {
  const Model<Word>& model;
  const int32_t* ids;
  const int64_t* offsets;
  int64_t n, tokens, longest;

  float* x;      /* [tokens][x_stride] */
  Word* words;   /* [tokens][words_stride]: x as products read it; for float32 x itself */
  Word* qkv;     /* [tokens][qkv_stride]: queries, keys, values of all heads, one after another */
  Word* context; /* [tokens][context_stride] */
  Word* inner;   /* [at most kInnerRows][inner_stride] */
  int64_t x_stride, words_stride, qkv_stride, context_stride, inner_stride;
  AttentionMemory<Word> attention;
  FirstRowMemory<Word> first;

  Pass(const Model<Word>& model, const int32_t* ids, const int64_t* offsets, int64_t n, int64_t longest)
      : model(model), ids(ids), offsets(offsets), n(n), tokens(offsets[n]), longest(longest) {}

  void take(Arena* arena) {
    const int64_t per = kPer<Word>, wide = larger(model.padded, round_up(model.spec.width, kBlock));
    x_stride = wide + kPad;
    words_stride = per == 1 ? x_stride : wide / per + kPad;
    qkv_stride = 3 * model.padded / per + kBlock;
    context_stride = model.padded / per + kBlock;
    inner_stride = round_up(model.inner, kBlock) / per + kPad;
    x = arena->take<float>(tokens * x_stride);
    words = per == 1 ? reinterpret_cast<Word*>(x) : arena->take<Word>(tokens * words_stride);
    qkv = arena->take<Word>(tokens * qkv_stride);
    context = arena->take<Word>(tokens * context_stride);
    inner = arena->take<Word>((tokens < kInnerRows ? tokens : kInnerRows) * inner_stride);
    attention.take(arena, longest, model.head);
    first.take(arena, model, n, longest);
  }

  /* After x has changed in these rows: LayerNorm, and the words of the next product. */
  void finish_rows(int64_t begin, int64_t end, const ec_norm& norm, int64_t width) {
    for (int64_t t = begin; t < end; ++t) {
      layer_norm(x + t * x_stride, width, norm, model.spec.epsilon);
      to_words(words + t * words_stride, x + t * x_stride, round_up(width, kBlock));
    }
  }

  void embed() {
    const ec_encoder_spec& spec = model.spec;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t t = offsets[i]; t < offsets[i + 1]; ++t) {
        const float *word = spec.word + (int64_t)ids[t] * spec.width,
                    *position = spec.position + (t - offsets[i]) * spec.width;
        float* out = x + t * x_stride;
        for (int64_t c = 0; c < spec.width; ++c)
          out[c] = word[c] + (spec.token_type ? spec.token_type[c] : 0.0f) + position[c];
        clear_tail(out, spec.width, x_stride);
      }
    finish_rows(0, tokens, spec.norm, spec.width);
    if (!model.has_projection()) return;
    const Linear<Word>& to = model.projection; /* from a copy, in memory that nobody needs yet */
    for (int64_t t = 0; t < tokens; ++t)
      memcpy(qkv + t * qkv_stride, words + t * words_stride, (size_t)to.words * sizeof(Word));
    for (int64_t t = 0; t < tokens; ++t) clear_tail(x + t * x_stride, 0, x_stride);
    product(Rows<Word>{qkv, qkv_stride}, tokens, to.weight, to.columns, to.words,
            AddTo{x, x_stride, to.bias});
    for (int64_t t = 0; t < tokens; ++t) to_words(words + t * words_stride, x + t * x_stride, model.padded);
  }

  /* x += output(context), LayerNorm, feed-forward part, LayerNorm, for `rows` rows. */
  void after_attention(const Layer<Word>& layer, int64_t rows) {
    /* 1. x += output(context), LayerNorm. */
    product(Rows<Word>{context, context_stride}, rows, layer.output.weight, layer.output.columns,
            layer.output.words, AddTo{x, x_stride, layer.output.bias});
    finish_rows(0, rows, layer.norm1, model.dim);
    /* 2. A block of rows at a time: inner = activation(up(words)), x += down(inner), cut along its sum. */
    for (int64_t begin = 0; begin < rows; begin += kInnerRows) {
      const int64_t end = begin + kInnerRows < rows ? begin + kInnerRows : rows;
      switch (model.spec.activation) {
        case EC_GELU:
          up<EC_GELU>(layer.up, begin, end);
          break;
        case EC_GELU_TANH:
          up<EC_GELU_TANH>(layer.up, begin, end);
          break;
        default:
          up<EC_RELU>(layer.up, begin, end);
      }
      const Linear<Word>& down = layer.down;
      for (int64_t k = 0; k < down.words; k += kInnerWords) {
        const Panels<Word> part = {down.weight.data + k * kBlock, down.weight.panel, kBlock};
        product(Rows<Word>{inner + k, inner_stride}, end - begin, part, down.columns,
                down.words - k < kInnerWords ? down.words - k : kInnerWords,
                AddTo{x + begin * x_stride, x_stride, k ? nullptr : down.bias});
      }
    }
    finish_rows(0, rows, layer.norm2, model.dim);
  }

  template <int Activation>
  void up(const Linear<Word>& linear, int64_t begin, int64_t end) {
    product(Rows<Word>{words + begin * words_stride, words_stride}, end - begin, linear.weight,
            linear.columns, linear.words, StoreWords<Word, Activation>{inner, inner_stride, linear.bias});
  }

  void layer(const Layer<Word>& layer) {
    product(Rows<Word>{words, words_stride}, tokens, layer.qkv.weight, layer.qkv.columns, layer.qkv.words,
            StoreWords<Word>{qkv, qkv_stride, layer.qkv.bias});
    for (int64_t i = 0; i < n; ++i)
      attend(model, attention, qkv + offsets[i] * qkv_stride, qkv_stride, offsets[i + 1] - offsets[i],
             context + offsets[i] * context_stride, context_stride);
    after_attention(layer, tokens);
  }

  /* Afterwards row i of x belongs to sequence i. */
  void last_layer_first_rows() {
    attend_first(model, first, x, x_stride, words, words_stride, offsets, n, context, context_stride);
    for (int64_t i = 1; i < n; ++i)
      memcpy(x + i * x_stride, x + offsets[i] * x_stride, (size_t)model.padded * sizeof(float));
    after_attention(model.layers[model.spec.layers - 1], n);
  }

  void pool(const ec_output& output, bool first_rows_only) const {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t begin = first_rows_only ? i : offsets[i];
      const int64_t place = output.pooling == EC_POOL_TOKENS ? offsets[i] : i;
      pool_rows(output.pooling, output.vectors + place * model.dim, x + begin * x_stride, x_stride,
                offsets[i + 1] - offsets[i], model.dim);
    }
  }

  void run(const ec_output* outputs, int32_t n_outputs) {
    /* 1. The highest layer that an output reads, and whether of the last one all read first rows only. */
    const int64_t last = model.spec.layers;
    int64_t top = 0;
    bool only_first_rows = true; /* of the last layer */
    for (int32_t o = 0; o < n_outputs; ++o) {
      top = larger(top, outputs[o].layer);
      only_first_rows &= outputs[o].layer < last || reads_first_row_only(outputs[o].pooling);
    }
    /* 2. Layer by layer (0: the embeddings), and after each the outputs that read it. */
    embed();
    for (int64_t k = 0; k <= top; ++k) {
      const bool shortened = k == last && only_first_rows && k > 0;
      if (shortened)
        last_layer_first_rows();
      else if (k > 0)
        layer(model.layers[k - 1]);
      for (int32_t o = 0; o < n_outputs; ++o)
        if (outputs[o].layer == k) pool(outputs[o], shortened);
    }
  }
};

}  // namespace EC_ISA

#endif
