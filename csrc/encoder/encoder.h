/* The C interface of the native encoder: a frozen BERT-like transformer on a CPU, token ids to vectors.
 *
 * This file is for post-LayerNorm encoders (embedcache/encoder/families.py lists them), rotary.h for another
 * kind. All weights are float32,
 * row-major, [out][in] for a linear layer. create() packs its own copy of the linear layers; the embedding
 * tables and the LayerNorms stay the caller's and must outlive the encoder.
 *
 * A row's vectors depend on its ids only, to the bit: not on its batch, not on the thread.
 */
#ifndef EMBEDCACHE_ENCODER_H
#define EMBEDCACHE_ENCODER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EC_ENCODER_ABI_VERSION 4

enum { EC_GELU = 0, EC_GELU_TANH = 1, EC_RELU = 2 };
/* The products' operands; their sums are float32. EC_ENCODE_INT8 (int8.h): those of the linear layers, whose
 * sums are int32; attention's own are bfloat16, or float32 on machines without it. */
enum { EC_ENCODE_FLOAT32 = 0, EC_ENCODE_BFLOAT16 = 1, EC_ENCODE_INT8 = 2 };
/* Linear layers that are not int8 in EC_ENCODE_INT8, but as attention's products. */
enum { EC_KEEP_QKV = 1, EC_KEEP_OUTPUT = 2, EC_KEEP_UP = 4, EC_KEEP_DOWN = 8 };
/* A new one is a function in poolings.h and a record in embedcache/encoder/poolings.py. */
enum {
  EC_POOL_TOKENS = -1, /* none: the vector of every token */
  EC_POOL_CLS = 0,
  EC_POOL_MEAN = 1,
  EC_POOL_MAX = 2,
  EC_POOL_LAST = 3,
  EC_POOLINGS /* how many there are */
};

typedef struct {
  const float* weight; /* [out][in] */
  const float* bias;   /* [out] */
} ec_linear;

typedef struct {
  const float* weight; /* [dim] */
  const float* bias;
} ec_norm;

typedef struct {
  ec_linear query, key, value, output, up, down;
  ec_norm norm1, norm2; /* after attention, after the feed-forward part */
  /* With ec_encoder_spec.bucket (disentangled.h), [buckets][D] each: what queries and what keys are
   * multiplied by, for each bucket of distances. */
  const float *distance_key, *distance_query;
  int32_t kept; /* EC_KEEP_... */
} ec_layer;

typedef struct {
  int64_t vocabulary, positions;
  int64_t width; /* E, of the embeddings */
  int64_t dim;   /* D; another than E only with a projection */
  int64_t inner; /* F, of the feed-forward part */
  int64_t heads;
  int64_t layers;
  const float* word;       /* [vocabulary][E] */
  const float* position;   /* [positions][E], row 0 for a row's first token; or NULL */
  const float* token_type; /* [E] or NULL */
  ec_norm norm;            /* of the embeddings, [E] */
  ec_linear projection;    /* [D][E]; weight NULL: there is none */
  const ec_layer* layer;   /* [layers] */
  const float* relative;   /* [heads][2 positions - 1], added to the score of query i and key j at
                              j - i + positions - 1, or NULL */
  const int32_t* bucket;   /* [2 positions - 1], ascending: that of key j's distance from query i at
                              j - i + positions - 1. NULL: scores do not depend on distances by content */
  int64_t buckets;
  float epsilon; /* of every LayerNorm */
  int32_t activation;
  int32_t compute;
} ec_encoder_spec;

typedef struct {
  int32_t layer;   /* 0: the embeddings, to layers */
  int32_t pooling; /* EC_POOL_... */
  float* vectors;  /* [n][D]; of EC_POOL_TOKENS [offsets[n]][D] */
} ec_output;

typedef struct ec_encoder ec_encoder;

int32_t ec_encoder_abi_version(void);
/* The code that this machine runs: "cpu-avx2", "cpu-avx512", "cpu-avx512-bf16" (for int8 with "-vnni", or
 * without it emulated, with the same sums), or "" where none can run. */
const char* ec_encoder_backend(int32_t compute);
/* NULL on failure; ec_encoder_last_error says why. */
ec_encoder* ec_encoder_create(const ec_encoder_spec* spec);
void ec_encoder_destroy(ec_encoder* encoder);
/* One batch of n rows on the calling thread; several threads may run one encoder at once. Row i has the ids
 * [offsets[i], offsets[i + 1]), at least one, at most `positions`. 0, or not on failure. */
int32_t ec_encoder_run(const ec_encoder* encoder, const int32_t* ids, const int64_t* offsets, int64_t n,
                       const ec_output* outputs, int32_t n_outputs);
const char* ec_encoder_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
