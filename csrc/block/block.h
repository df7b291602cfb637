/* The C interface of the block engine: last encoder layers with a head on top, trained in banks on a CPU.
 *
 * One call trains many blocks, each for whole epochs, on cached token states: what the lowest of the layers
 * reads, true tokens only. Where one row of a text is asked, its first token's (or its last one's), keys and
 * values of the last layer are folded into that row's query and into the sum that comes after the softmax;
 * layers below, and all of them for the mean, are computed whole, without padding. docs/engine.md has the
 * algebra, forward and back. Post-LayerNorm layers (BERT and its like). Plain pointers and sizes only.
 *
 * Tasks, views and scores are those of the head engine (../heads/heads.h); a view's x is the states' rows.
 */
#ifndef EMBEDCACHE_BLOCK_H
#define EMBEDCACHE_BLOCK_H

#include "../encoder/encoder.h"
#include "../heads/heads.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EC_BLOCK_ABI_VERSION 4

/* ec_block_shape.query: whose row of the last layer is a text's vector, or the mean of all rows. */
enum { EC_QUERY_FIRST = 0, EC_QUERY_LAST = 1, EC_QUERY_MEAN = 2 };

/* What is trained, as row-major float32: a layer's tensors, and the head's. The key's bias is not: its
 * gradient is zero, for the softmax does not see it. */
enum {
  EC_BLOCK_QUERY,       /* [D][D], as every matrix [out][in] */
  EC_BLOCK_QUERY_BIAS,  /* [D] */
  EC_BLOCK_KEY,         /* [D][D] */
  EC_BLOCK_VALUE,       /* [D][D] */
  EC_BLOCK_VALUE_BIAS,  /* [D] */
  EC_BLOCK_OUTPUT,      /* [D][D] */
  EC_BLOCK_OUTPUT_BIAS, /* [D] */
  EC_BLOCK_NORM1,       /* [D] */
  EC_BLOCK_NORM1_BIAS,  /* [D] */
  EC_BLOCK_UP,          /* [F][D] */
  EC_BLOCK_UP_BIAS,     /* [F] */
  EC_BLOCK_DOWN,        /* [D][F] */
  EC_BLOCK_DOWN_BIAS,   /* [D] */
  EC_BLOCK_NORM2,       /* [D] */
  EC_BLOCK_NORM2_BIAS,  /* [D] */
  EC_BLOCK_HEAD1,       /* [hidden][D], NULL when hidden is 0 */
  EC_BLOCK_HEAD1_BIAS,  /* [hidden], NULL when hidden is 0 */
  EC_BLOCK_HEAD2,       /* [outputs][hidden], or [outputs][D] when hidden is 0 */
  EC_BLOCK_HEAD2_BIAS,  /* [outputs] */
  EC_BLOCK_TENSORS,
  EC_LAYER_TENSORS = EC_BLOCK_HEAD1
};

/* Row i has lengths[i] tokens, from row begins[i] of values [tokens][dim] on; rows may share theirs. A row
 * without tokens has a vector of zeros. */
typedef struct {
  const void* values;
  const int64_t *begins, *lengths; /* [rows] */
  int64_t rows, tokens, dim;
  int32_t dtype; /* EC_FLOAT16, EC_FLOAT32 */
} ec_states;

typedef struct {
  int64_t inner, heads;  /* F; heads divide dim */
  int64_t positions;     /* of `relative` */
  const float* relative; /* [heads][2 positions - 1] as in ec_encoder_spec, not trained, or NULL */
  double epsilon;        /* of both LayerNorms */
  int32_t activation;    /* EC_GELU, ... */
  int32_t query;         /* EC_QUERY_... */
  int32_t layers;        /* 1 or more, all of this shape */
  int32_t unit;          /* whether a text's vector is scaled to length 1, as torch's normalize */
} ec_block_shape;

static inline int64_t ec_block_tensors(const ec_block_shape* shape) {
  return (shape->layers - 1) * (int64_t)EC_LAYER_TENSORS + EC_BLOCK_TENSORS;
}

/* A block. Its logits are a linear layer of its vector, or, with `hidden`, Linear - ReLU - dropout - Linear.
 * lr is for the block's tensors, head_lr for the head's; decay is for matrices alone, as transformers does.
 * Losses, schedules and settings as in ec_head. */
typedef struct {
  int32_t task; /* index into tasks */
  int32_t hidden;
  int32_t batch_size;
  int32_t epochs; /* 0: nothing is trained, the validation rows are scored by `start` */
  int32_t early_stop;
  int32_t schedule, loss;
  double lr, head_lr, beta1, beta2, eps, weight_decay;
  double hidden_dropout, attention_dropout, head_dropout; /* in [0, 1) */
  double clip; /* the most that a step's gradient may have as its norm, as clip_grad_norm_; 0: no clipping */
  double label_smoothing, warmup, loss_setting;
  const float* class_weight; /* [outputs] or NULL: weights of the training loss */
  const float* const* start; /* [ec_block_tensors]: where the weights start; layers from the lowest up, then
                                the head */
  uint64_t seed;
} ec_block;

/* Filled by the engine as ec_result: weights and validation logits of the best epoch, each [epochs] long list
 * of the block's own epochs. */
typedef struct {
  float* const* best; /* as start */
  float* val_logits;  /* [val.n][outputs], or NULL where nobody asks */
  double *train_loss, *val_loss, *val_accuracy, *val_f1;
  double* norm; /* [epochs]: mean over the steps of the gradient's norm before clipping; NaN without */
  int32_t best_epoch, epochs_run, status;
} ec_block_result;

typedef struct {
  int32_t choose, threads, compute;
  const volatile int32_t* cancel; /* or NULL */
  volatile int64_t* progress;     /* or NULL: [1], training rows finished, summed over blocks */
} ec_block_options;

int32_t ec_block_abi_version(void);
const char* ec_block_backend(int32_t compute); /* "cpu-avx512", "cpu-avx512-bf16", "cpu-avx2", "cpu-plain" */
const char* ec_block_last_error(void);
int32_t ec_block_train(const ec_states* states, const ec_block_shape* shape, const ec_task* tasks,
                       int32_t n_tasks, const ec_block* blocks, ec_block_result* results, int32_t n_blocks,
                       const ec_block_options* options);

#ifdef __cplusplus
}
#endif
#endif
