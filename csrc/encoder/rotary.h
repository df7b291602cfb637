/* The C interface of the other kind of encoder: rotary positions and a gated feed-forward part.
 *
 * One layer is, with the parts that a family does not have left out (weight NULL):
 *
 *   h = before_attention(x);  x = sum_attention(x + after_attention(attention(h)))
 *   h = before_glu(x);        x = sum_glu(x + after_glu(down(activation(gate(h)) * up(h))))
 *
 * embedcache/encoder/rotary_families.py lists the families. Weights come as those of encoder.h do: linear
 * layers are packed, embeddings, norms and tables of angles stay the caller's. ec_encoder_run and
 * ec_encoder_destroy serve both kinds.
 */
#ifndef EMBEDCACHE_ROTARY_H
#define EMBEDCACHE_ROTARY_H

#include "encoder.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EC_SILU = 3 }; /* beside the activations of encoder.h */

typedef struct {
  const float*
      cosine; /* [positions][head / 2]: of the angles by which a head's numbers i and i + head / 2 turn */
  const float* sine;
  int64_t window; /* keys at most this far away are seen; negative: all */
  ec_linear query, key, value, output, gate, up, down; /* a bias NULL: there is none, as in all norms */
  ec_norm before_attention, after_attention, sum_attention;
  ec_norm before_glu, after_glu, sum_glu;
  ec_norm query_norm, key_norm; /* [head], of every head */
} ec_rotary_layer;

typedef struct {
  int64_t vocabulary, positions;
  int64_t dim;              /* D */
  int64_t inner;            /* F, of the feed-forward part */
  int64_t heads, key_heads; /* of queries; of keys and values: heads / key_heads queries share a key */
  int64_t head;             /* numbers of a head; heads * head may differ from D */
  int64_t layers;
  const float* word;            /* [vocabulary][D], times word_scale */
  const float* token_type;      /* [D] or NULL */
  ec_norm norm;                 /* of the embeddings */
  ec_norm final_norm;           /* of the last layer's output */
  const ec_rotary_layer* layer; /* [layers] */
  float word_scale;
  float scale;    /* of the scores */
  float epsilon;  /* of every norm */
  int32_t rms;    /* RMSNorm instead of LayerNorm: no mean is subtracted */
  int32_t causal; /* a token sees only itself and the tokens before it */
  int32_t activation;
  int32_t compute;
} ec_rotary_spec;

/* NULL on failure; ec_encoder_last_error says why. */
ec_encoder* ec_rotary_create(const ec_rotary_spec* spec);

#ifdef __cplusplus
}
#endif

#endif
