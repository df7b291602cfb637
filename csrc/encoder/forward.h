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

/* Whether x itself is what products of float32 read. Not with int8, where the down product's first part
 * changes x before the up product's second part reads it. */
template <class Word>
constexpr bool kAlias = kPer<Word> == 1 && !kInt8;

/* What int8 products read, and what becomes it. */
struct Int8Memory {
  SpilledRows x;        /* [tokens] */
  ShiftedRows contexts; /* [tokens] */
  ShiftedRows inner;    /* [at most kInnerRows], kSumPart of each */
  float* floats;        /* [rows][float_stride]: contexts of a sequence, or a part of the inner rows */
  int64_t float_stride;
  int32_t* most; /* [at most kInnerRows][kLanes], of a part of the inner rows */

  template <class Word>
  void take(Arena* arena, const Model<Word>& model, int64_t tokens, int64_t rows) {
    const int64_t inner_rows = tokens < kInnerRows ? tokens : kInnerRows;
    x.take(arena, tokens, model.dim);
    contexts.take(arena, tokens, model.dim);
    inner.take(arena, inner_rows, kSumPart);
    float_stride = larger(model.padded, kSumPart) + kBlock;
    most = arena->take<int32_t>(inner_rows * kLanes);
    floats = arena->take<float>(larger(rows, inner_rows) * float_stride);
  }
};

template <class Word>
struct Pass {
  const Model<Word>& model;
  const int32_t* ids;
  const int64_t* offsets;
  int64_t n, tokens, longest;

  float* x;      /* [tokens][x_stride] */
  Word* words;   /* [tokens][words_stride]: x as products read it; see kAlias */
  Word* qkv;     /* [tokens][qkv_stride]: queries, keys, values of all heads, one after another */
  Word* context; /* [tokens][context_stride] */
  Word* inner;   /* [at most kInnerRows][inner_stride] */
  int64_t x_stride, words_stride, qkv_stride, context_stride, inner_stride;
  AttentionMemory<Word> attention;
  FirstRowMemory<Word> first;
  Int8Memory int8;

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
    words = kAlias<Word> ? reinterpret_cast<Word*>(x) : arena->take<Word>(tokens * words_stride);
    qkv = arena->take<Word>(tokens * qkv_stride);
    context = arena->take<Word>(tokens * context_stride);
    inner = arena->take<Word>((tokens < kInnerRows ? tokens : kInnerRows) * inner_stride);
    attention.take(arena, longest, model.head);
    attention.distances.take(arena, model, longest);
    if (!model.spec.bucket) first.take(arena, model, n, longest);
    if (kInt8) int8.take(arena, model, tokens, larger(longest, n));
  }

  /* R rows of x from t on as `reader`, the next product, reads them; NULL: as words. */
  template <int R>
  void hand_on(int64_t t, int64_t width, const Linear<Word>* reader) {
    if (kInt8 && reader && reader->is_int8())
      return quantize<R>(x + t * x_stride, x_stride, width, int8.x, t);
    for (int64_t i = t; i < t + R; ++i)
      if (kPer<Word> == 1 && !kAlias<Word>)
        memcpy(words + i * words_stride, x + i * x_stride, (size_t)round_up(width, kBlock) * sizeof(float));
      else
        to_words(words + i * words_stride, x + i * x_stride, round_up(width, kBlock));
  }

  /* After x has changed in these rows: LayerNorm, and the rows for the next product. */
  void finish_rows(int64_t begin, int64_t end, const ec_norm& norm, int64_t width,
                   const Linear<Word>* reader) {
    constexpr int kTogether = 4;
    int64_t t = begin;
    for (; t + kTogether <= end; t += kTogether) {
      layer_norm<kTogether>(x + t * x_stride, x_stride, width, norm, model.spec.epsilon);
      hand_on<kTogether>(t, width, reader);
    }
    for (; t < end; ++t) {
      layer_norm<1>(x + t * x_stride, x_stride, width, norm, model.spec.epsilon);
      hand_on<1>(t, width, reader);
    }
  }

  /* The linear layer's product with m rows of words, or with the same rows quantized: those from `first` on.
   */
  template <class AnyRows, class Epilogue>
  void apply(const Linear<Word>& to, Rows<Word> rows, const AnyRows& quads, int64_t first, int64_t m,
             const Epilogue& epilogue) {
    if constexpr (kInt8)
      if (to.is_int8()) return product(quads.from(first), m, to.quads, to.columns, epilogue);
    product(rows, m, to.weight, to.columns, to.words, epilogue);
  }

  /* reader: of the first layer. */
  void embed(const Linear<Word>* reader) {
    const ec_encoder_spec& spec = model.spec;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t t = offsets[i]; t < offsets[i + 1]; ++t) {
        const float *word = spec.word + (int64_t)ids[t] * spec.width,
                    *position = spec.position ? spec.position + (t - offsets[i]) * spec.width : nullptr;
        float* out = x + t * x_stride;
        for (int64_t c = 0; c < spec.width; ++c)
          out[c] = word[c] + (spec.token_type ? spec.token_type[c] : 0.0f) + (position ? position[c] : 0.0f);
        clear_tail(out, spec.width, x_stride);
      }
    finish_rows(0, tokens, spec.norm, spec.width, model.has_projection() ? nullptr : reader);
    if (!model.has_projection()) return;
    const Linear<Word>& to = model.projection; /* from a copy, in memory that nobody needs yet */
    for (int64_t t = 0; t < tokens; ++t)
      memcpy(qkv + t * qkv_stride, words + t * words_stride, (size_t)to.words * sizeof(Word));
    for (int64_t t = 0; t < tokens; ++t) clear_tail(x + t * x_stride, 0, x_stride);
    product(Rows<Word>{qkv, qkv_stride}, tokens, to.weight, to.columns, to.words,
            AddTo{x, x_stride, to.bias});
    for (int64_t t = 0; t < tokens; ++t) hand_on<1>(t, model.dim, reader);
  }

  /* x += output(context), LayerNorm, feed-forward part, LayerNorm, for `rows` rows; reader: of the next
   * layer. */
  void after_attention(const Layer<Word>& layer, int64_t rows, const Linear<Word>* reader) {
    /* A block of rows goes through all of it, while its rows of x are in L2. */
    for (int64_t begin = 0; begin < rows; begin += kInnerRows) {
      const int64_t end = begin + kInnerRows < rows ? begin + kInnerRows : rows;
      apply(layer.output, {context + begin * context_stride, context_stride}, int8.contexts, begin,
            end - begin, AddTo{x + begin * x_stride, x_stride, layer.output.bias});
      finish_rows(begin, end, layer.norm1, model.dim, &layer.up);
      switch (model.spec.activation) {
        case EC_GELU:
          feed_forward<EC_GELU>(layer, begin, end);
          break;
        case EC_GELU_TANH:
          feed_forward<EC_GELU_TANH>(layer, begin, end);
          break;
        default:
          feed_forward<EC_RELU>(layer, begin, end);
      }
      finish_rows(begin, end, layer.norm2, model.dim, reader);
    }
  }

  /* The inner rows as words: inner = activation(up(words)), x += down(inner), cut along its sum. */
  template <int Activation>
  void feed_forward(const Layer<Word>& layer, int64_t begin, int64_t end) {
    const Linear<Word>& down = layer.down;
    if (down.is_int8()) return feed_forward_int8<Activation>(layer, begin, end);
    apply(layer.up, {words + begin * words_stride, words_stride}, int8.x, begin, end - begin,
          StoreWords<Word, Activation>{inner, inner_stride, layer.up.bias});
    for (int64_t k = 0; k < down.words; k += kInnerWords) {
      const Panels<Word> part = {down.weight.data + k * kBlock, down.weight.panel, kBlock};
      product(Rows<Word>{inner + k, inner_stride}, end - begin, part, down.columns,
              down.words - k < kInnerWords ? down.words - k : kInnerWords,
              AddTo{x + begin * x_stride, x_stride, k ? nullptr : down.bias});
    }
  }

  /* The inner rows quantized: kSumPart of each at a time, with a scale of their own, while they are in
   * L2. */
  template <int Activation>
  void feed_forward_int8(const Layer<Word>& layer, int64_t begin, int64_t end) {
    const int64_t rows = end - begin, stride = int8.float_stride;
    const Linear<Word>& down = layer.down;
    for (int64_t k = 0; k < model.inner; k += kSumPart) {
      const int64_t n = model.inner - k < kSumPart ? model.inner - k : kSumPart;
      Linear<Word> up = layer.up;
      up.columns = round_up(n, kBlock);
      up.bias += k;
      if (up.is_int8())
        up.quads = up.quads.columns_from(k);
      else
        up.weight.data += k / kBlock * up.weight.panel;
      apply(up, {words + begin * words_stride, words_stride}, int8.x, begin, rows,
            StoreActivated<Activation>{int8.floats, stride, up.bias, int8.most});
      for (int64_t i = 0; i < rows; ++i)
        quantize(int8.floats + i * stride, n, int8.inner, i, kLowest<Activation>,
                 largest_of(load_whole(int8.most + i * kLanes)));
      product(int8.inner, rows, down.quads.part_of_sum(k, n), down.columns,
              AddTo{x + begin * x_stride, x_stride, k ? nullptr : down.bias});
    }
  }

  /* Of each sequence all rows, or the first alone, which then lie one after another. */
  void attend_rows(const Layer<Word>& layer, bool first_alone) {
    apply(layer.qkv, {words, words_stride}, int8.x, 0, tokens,
          StoreWords<Word>{qkv, qkv_stride, layer.qkv.bias});
    for (int64_t i = 0; i < n; ++i) {
      const Word* rows = qkv + offsets[i] * qkv_stride;
      const int64_t length = offsets[i + 1] - offsets[i], to = first_alone ? i : offsets[i],
                    queries = first_alone ? 1 : length;
      if (layer.output.is_int8()) {
        attend<true>(model, layer.distances, attention, rows, qkv_stride, length, queries, int8.floats,
                     int8.float_stride);
        quantize_contexts(to, queries);
      } else {
        attend<false>(model, layer.distances, attention, rows, qkv_stride, length, queries,
                      context + to * context_stride, context_stride);
      }
    }
  }

  void layer(const Layer<Word>& layer, const Linear<Word>* reader) {
    attend_rows(layer, false);
    after_attention(layer, tokens, reader);
  }

  /* Contexts as floats: the quantized rows from `first` on. */
  void quantize_contexts(int64_t first, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) {
      float* row = int8.floats + i * int8.float_stride;
      quantize_even(row, model.dim, int8.contexts, first + i);
    }
  }

  /* Afterwards row i of x belongs to sequence i. */
  void last_layer_first_rows() {
    const Layer<Word>& layer = model.layers[model.spec.layers - 1];
    if (layer.distances.key) {
      attend_rows(layer, true);
    } else if (layer.output.is_int8()) {
      attend_first(model, first, x, x_stride, words, words_stride, offsets, n, int8.floats,
                   int8.float_stride);
      quantize_contexts(0, n);
    } else {
      attend_first(model, first, x, x_stride, words, words_stride, offsets, n, context, context_stride);
    }
    for (int64_t i = 1; i < n; ++i)
      memcpy(x + i * x_stride, x + offsets[i] * x_stride, (size_t)model.padded * sizeof(float));
    after_attention(layer, n, nullptr);
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
    const auto shortened = [&](int64_t k) { return k == last && only_first_rows && k > 0; };
    const auto reader = [&](int64_t k) { /* of layer k's rows */
                                         const bool by_qkv = !shortened(k + 1) || model.spec.bucket;
                                         return k < last && by_qkv ? &model.layers[k].qkv : nullptr;
    };
    embed(reader(0));
    for (int64_t k = 0; k <= top; ++k) {
      if (shortened(k))
        last_layer_first_rows();
      else if (k > 0)
        layer(model.layers[k - 1], reader(k));
      for (int32_t o = 0; o < n_outputs; ++o)
        if (outputs[o].layer == k) pool(outputs[o], shortened(k));
    }
  }
};

}  // namespace EC_ISA

#endif
