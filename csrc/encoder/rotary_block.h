/* One batch of rows through a rotary encoder, on one thread: embeddings, layers, pooling. Rows lie one after
 * another without padding.
 *
 * Touches, for T tokens: x, the float32 residual (4 T D bytes), its normed copy, queries, keys, values and
 * contexts (T words of each), and what kInnerRows tokens need between two products; all the weights once a
 * block of rows. Bound by the FMA units while T is some hundreds, and by reading the weights below that.
 */
#ifndef EMBEDCACHE_ENCODER_ROTARY_BLOCK_H
#define EMBEDCACHE_ENCODER_ROTARY_BLOCK_H

#include "blocks.h"
#include "poolings.h"
#include "rotary_attention.h"

namespace EC_ISA {

template <class Word>
struct RotaryPass {
  const RotaryModel<Word>& model;
  const int32_t* ids;
  const int64_t* offsets;
  int64_t n, tokens, longest;

  float* x;      /* [tokens][x_stride] */
  Word* words;   /* [tokens][words_stride]: x as a part's products read it */
  Word* qkv;     /* [tokens][qkv_stride]: queries, keys, values of all heads, one after another */
  Word* context; /* [tokens][context_stride] */
  Word* inner;   /* [at most kInnerRows][inner_stride] */
  float* raw;    /* [at most kInnerRows][raw_stride]: queries or keys before they are turned */
  float* part;   /* [at most kInnerRows][x_stride]: a part's output, if it is normed before it is added */
  Word* chosen;  /* [n][words_stride]: the rows asked for, if only one of each sequence is */
  Word* chosen_query; /* [n][qkv_stride] */
  int64_t* place;     /* [tokens]: of a token in its sequence; later those of the chosen ones */
  int64_t x_stride, words_stride, qkv_stride, context_stride, inner_stride, raw_stride;
  int64_t key_at, value_at; /* words, in a row of qkv */
  RotaryAttention<Word> attention;

  RotaryPass(const RotaryModel<Word>& model, const int32_t* ids, const int64_t* offsets, int64_t n,
             int64_t longest)
      : model(model), ids(ids), offsets(offsets), n(n), tokens(offsets[n]), longest(longest) {}

  void take(Arena* arena) {
    const ec_rotary_spec& spec = model.spec;
    const int64_t per = kPer<Word>, block = tokens < kInnerRows ? tokens : kInnerRows;
    const int64_t queries = spec.heads * spec.head, keys = spec.key_heads * spec.head;
    key_at = queries / per;
    value_at = key_at + keys / per;
    x_stride = model.padded + kPad;
    words_stride = model.padded / per + kPad;
    qkv_stride = value_at + keys / per + kBlock;
    context_stride = queries / per + kBlock;
    inner_stride = round_up(spec.inner, kBlock) / per + kPad;
    raw_stride = round_up(queries, kBlock) + kBlock; /* a head's last words come from beyond it */
    x = arena->take<float>(tokens * x_stride);
    words = arena->take<Word>(tokens * words_stride);
    qkv = arena->take<Word>(tokens * qkv_stride);
    context = arena->take<Word>(tokens * context_stride);
    inner = arena->take<Word>(block * inner_stride);
    raw = arena->take<float>(block * raw_stride);
    part = arena->take<float>(block * x_stride);
    chosen = arena->take<Word>(n * words_stride);
    chosen_query = arena->take<Word>(n * qkv_stride);
    place = arena->take<int64_t>(tokens);
    attention.take(arena, longest, spec.head);
  }

  void norm(float* out, const float* in, const ec_norm& by) const {
    norm_row(out, in, model.spec.dim, by, model.spec.epsilon, model.spec.rms);
  }
  void norm_rows(const ec_norm& by, int64_t begin, int64_t end) {
    for (int64_t t = begin; by.weight && t < end; ++t) norm(x + t * x_stride, x + t * x_stride, by);
  }
  /* words = norm(x), or x. */
  void words_of_rows(const ec_norm& by, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* from = x + t * x_stride;
      if (by.weight) norm(part, from, by), from = part;
      put_words(words + t * words_stride, from, model.padded);
    }
  }
  /* x += a times the linear layer, whose output is normed if it has a norm; for at most kInnerRows rows. */
  void add_product(const Linear<Word>& linear, const Word* a, int64_t stride, const ec_norm& after,
                   const ec_norm& sum, int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    float* to = x + begin * x_stride;
    if (after.weight) memset(to = part, 0, (size_t)(rows * x_stride) * sizeof(float));
    for (int64_t k = 0; k < linear.words;
         k += kInnerWords) { /* cut along its sum, so that operands stay in L2 */
      const Panels<Word> cut = {linear.weight.data + k * kBlock, linear.weight.panel, kBlock};
      product(Rows<Word>{a + k, stride}, rows, cut, linear.columns,
              linear.words - k < kInnerWords ? linear.words - k : kInnerWords,
              AddTo{to, x_stride, k ? nullptr : linear.bias});
    }
    for (int64_t i = 0; after.weight && i < rows; ++i) {
      float *from = part + i * x_stride, *row = x + (begin + i) * x_stride;
      norm(from, from, after);
      for (int64_t c = 0; c < model.padded; c += kLanes)
        store_unaligned(row + c, load_unaligned(row + c) + load_unaligned(from + c));
    }
    norm_rows(sum, begin, end);
  }

  void embed() {
    const ec_rotary_spec& spec = model.spec;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t t = offsets[i]; t < offsets[i + 1]; ++t) {
        const float* word = spec.word + (int64_t)ids[t] * spec.dim;
        float* out = x + t * x_stride;
        for (int64_t c = 0; c < spec.dim; ++c)
          out[c] = word[c] * spec.word_scale + (spec.token_type ? spec.token_type[c] : 0.0f);
        clear_tail(out, spec.dim, x_stride);
        place[t] = t - offsets[i];
      }
    norm_rows(spec.norm, 0, tokens);
  }

  /* Queries or keys of rows of words: to `out`, turned. */
  void turned(const Linear<Word>& linear, const RotaryLayer<Word>& layer, const ec_norm& by, float scale,
              int64_t heads, const Word* from, int64_t rows, Word* out) {
    const ec_rotary_spec& spec = model.spec;
    const int64_t half = spec.head / 2;
    for (int64_t begin = 0; begin < rows; begin += kInnerRows) {
      const int64_t end = begin + kInnerRows < rows ? begin + kInnerRows : rows;
      product(Rows<Word>{from + begin * words_stride, words_stride}, end - begin, linear.weight,
              linear.columns, linear.words, StoreWords<float>{raw, raw_stride, linear.bias});
      for (int64_t t = begin; t < end; ++t) {
        const float *cosine = layer.from.cosine + place[t] * half, *sine = layer.from.sine + place[t] * half;
        float* row = raw + (t - begin) * raw_stride;
        for (int64_t h = 0; h < heads; ++h)
          turn_head(row + h * spec.head, spec.head, by, spec.epsilon, spec.rms, cosine, sine, scale);
        put_words(out + t * qkv_stride, row, round_up(heads * spec.head, kStrip));
      }
    }
  }

  /* Keys and values of all rows. Keys are padded at the end of a row; the values overwrite the padding. */
  void keys_and_values(const RotaryLayer<Word>& layer) {
    turned(layer.key, layer, layer.from.key_norm, 1.0f, model.spec.key_heads, words, tokens, qkv + key_at);
    product(Rows<Word>{words, words_stride}, tokens, layer.value.weight, layer.value.columns,
            layer.value.words, StoreWords<Word>{qkv + value_at, qkv_stride, layer.value.bias});
  }

  /* Contexts of the queries from `query` on, one sequence's rows [0, length) or, of the chosen ones, one row.
   */
  void attend(const RotaryLayer<Word>& layer, int64_t sequence, const Word* query, int64_t first,
              int64_t rows, Word* out) {
    const ec_rotary_spec& spec = model.spec;
    const int64_t begin = offsets[sequence], length = offsets[sequence + 1] - begin,
                  head = spec.head / kPer<Word>;
    const int64_t shared = spec.heads / spec.key_heads;
    const Reach reach = {layer.from.window, length, spec.causal != 0};
    Panels<Word> keys = {}, values = {};
    for (int64_t h = 0; h < spec.heads; ++h) {
      if (h % shared == 0) {
        const Word* row = qkv + begin * qkv_stride + h / shared * head;
        keys = pack_keys(attention.keys, row + key_at, qkv_stride, length, head);
        values = pack_values(attention.values, row + value_at, qkv_stride, length, spec.head);
      }
      for (int64_t i = first; i < first + rows;) {
        const int64_t block = (i / kQueries + 1) * kQueries,
                      end = block < first + rows ? block : first + rows;
        attend_block(attention, keys, values, reach, spec.head, query + (i - first) * qkv_stride + h * head,
                     qkv_stride, i, end - i, out + (i - first) * context_stride + h * head, context_stride);
        i = end;
      }
    }
  }

  template <int Activation>
  void gated(const Linear<Word>& linear, int64_t begin, int64_t end) {
    product(Rows<Word>{words + begin * words_stride, words_stride}, end - begin, linear.weight,
            linear.columns, linear.words, StoreGated<Word, Activation>{inner, inner_stride, linear.bias});
  }

  /* From the contexts of `rows` rows on, a block at a time. */
  void after_attention(const RotaryLayer<Word>& layer, int64_t rows) {
    const ec_rotary_layer& by = layer.from;
    for (int64_t begin = 0; begin < rows; begin += kInnerRows) {
      const int64_t end = begin + kInnerRows < rows ? begin + kInnerRows : rows;
      /* 1. x += output(context). */
      add_product(layer.output, context + begin * context_stride, context_stride, by.after_attention,
                  by.sum_attention, begin, end);
      /* 2. inner = activation(gate(words)) * up(words), x += down(inner). */
      words_of_rows(by.before_glu, begin, end);
      switch (model.spec.activation) {
        case EC_GELU:
          gated<EC_GELU>(layer.glu, begin, end);
          break;
        case EC_GELU_TANH:
          gated<EC_GELU_TANH>(layer.glu, begin, end);
          break;
        case EC_SILU:
          gated<EC_SILU>(layer.glu, begin, end);
          break;
        default:
          gated<EC_RELU>(layer.glu, begin, end);
      }
      add_product(layer.down, inner, inner_stride, by.after_glu, by.sum_glu, begin, end);
    }
  }

  void layer(const RotaryLayer<Word>& layer) {
    words_of_rows(layer.from.before_attention, 0, tokens);
    turned(layer.query, layer, layer.from.query_norm, model.spec.scale, model.spec.heads, words, tokens, qkv);
    keys_and_values(layer);
    for (int64_t i = 0; i < n; ++i)
      attend(layer, i, qkv + offsets[i] * qkv_stride, 0, offsets[i + 1] - offsets[i],
             context + offsets[i] * context_stride);
    after_attention(layer, tokens);
  }

  /* The last layer for one row of each sequence. Afterwards row i of x belongs to sequence i. */
  void layer_of_chosen(const RotaryLayer<Word>& layer, int32_t pooling) {
    words_of_rows(layer.from.before_attention, 0, tokens);
    keys_and_values(layer);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = row_read(pooling, offsets[i], offsets[i + 1]);
      memcpy(chosen + i * words_stride, words + row * words_stride, (size_t)words_stride * sizeof(Word));
      memmove(x + i * x_stride, x + row * x_stride, (size_t)x_stride * sizeof(float));
      place[i] = row - offsets[i];
    }
    turned(layer.query, layer, layer.from.query_norm, model.spec.scale, model.spec.heads, chosen, n,
           chosen_query);
    for (int64_t i = 0; i < n; ++i)
      attend(layer, i, chosen_query + i * qkv_stride, place[i], 1, context + i * context_stride);
    after_attention(layer, n);
  }

  void pool(const ec_output& output, bool chosen_only) const {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t begin = chosen_only ? i : offsets[i],
                    length = chosen_only ? 1 : offsets[i + 1] - offsets[i];
      const int64_t to = output.pooling == EC_POOL_TOKENS ? offsets[i] : i;
      pool_rows(output.pooling, output.vectors + to * model.spec.dim, x + begin * x_stride, x_stride, length,
                model.spec.dim);
    }
  }

  void run(const ec_output* outputs, int32_t n_outputs) {
    /* 1. The highest layer that an output reads, and whether of the last one all read the same row. */
    const int64_t last = model.spec.layers;
    int64_t top = 0;
    int32_t pooling = EC_POOL_TOKENS;
    bool one_row = true;
    for (int32_t o = 0; o < n_outputs; ++o) {
      top = larger(top, outputs[o].layer);
      if (outputs[o].layer < last) continue;
      one_row &=
          reads_one_row(outputs[o].pooling) && (pooling == EC_POOL_TOKENS || pooling == outputs[o].pooling);
      pooling = outputs[o].pooling;
    }
    /* 2. Layer by layer (0: the embeddings), and after each the outputs that read it. */
    embed();
    for (int64_t k = 0; k <= top; ++k) {
      const bool chosen_only = k == last && one_row;
      if (k > 0 && chosen_only)
        layer_of_chosen(model.layers[k - 1], pooling);
      else if (k > 0)
        layer(model.layers[k - 1]);
      if (k == last) norm_rows(model.spec.final_norm, 0, chosen_only ? n : tokens);
      for (int32_t o = 0; o < n_outputs; ++o)
        if (outputs[o].layer == k) pool(outputs[o], chosen_only);
    }
  }
};

}  // namespace EC_ISA

#endif
