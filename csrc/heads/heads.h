/* The one C interface of the head engine; the CPU and the CUDA library both export exactly these functions.
 *
 * One call trains a bank of heads for whole epochs. Plain pointers and sizes only: no Python, no torch.
 * All matrices are row-major. The caller owns every buffer; the engine allocates only scratch memory.
 */
#ifndef EMBEDCACHE_HEADS_H
#define EMBEDCACHE_HEADS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EC_ABI_VERSION 8

enum { EC_FLOAT16 = 0, EC_FLOAT32 = 1, EC_SCALED_INT8 = 2 };                   /* ec_matrix.dtype */
enum { EC_COMPUTE_FLOAT32 = 0, EC_COMPUTE_BFLOAT16 = 1, EC_COMPUTE_TF32 = 2 }; /* ec_options.compute */
enum { EC_KIND_CLASSES = 0, EC_KIND_LABELS = 1, EC_KIND_NUMBERS = 2 };         /* ec_task.kind */
enum { EC_SCHEDULE_CONSTANT = 0, EC_SCHEDULE_LINEAR = 1, EC_SCHEDULE_COSINE = 2 };
enum { EC_CHOOSE_LOSS = 0, EC_CHOOSE_ACCURACY = 1, EC_CHOOSE_F1 = 2 }; /* ec_options.choose */
enum { EC_HEAD_OK = 0, EC_HEAD_DIVERGED = 1, EC_HEAD_CANCELLED = 2 };  /* ec_result.status */
enum { EC_OK = 0, EC_ERROR_ARGUMENT = 1, EC_ERROR_MEMORY = 2, EC_ERROR_DEVICE = 3, EC_ERROR_UNSUPPORTED = 4 };

/* A matrix read in place (often a memory map): element (i, j) lies at data + i * stride + j, in elements. Of
 * EC_SCALED_INT8 it is that times scale[i]. Where a scale has at most 17 significant bits, as those of caches
 * have, the product is exact: whatever is done with it then has the bits that it has of float32. */
typedef struct {
  const void* data;
  int64_t rows, dim, stride;
  int32_t dtype;
  const float* scale; /* [rows] of EC_SCALED_INT8, else not looked at */
} ec_matrix;

/* Some rows of a matrix and what is to be learned of them: rows[i] is a row number of x. With EC_KIND_CLASSES
 * its class is y[rows[i]], in [0, outputs); else its targets are the row rows[i] of `targets`: 0 or 1 for
 * EC_KIND_LABELS (a label is absent or there), any finite number for EC_KIND_NUMBERS. The other pointer is
 * NULL. */
typedef struct {
  ec_matrix x;
  const int32_t* y;           /* [x.rows] */
  const float* targets;       /* [x.rows, outputs], dense */
  const int64_t* rows;        /* [n] */
  int64_t n;                  /* below 2^32 */
  const float* sample_weight; /* [x.rows] or NULL: multiplies each row's loss; finite, 0 or more */
} ec_view;

/* Where a head's weights start, shaped as ec_result has them and acting on the standardized x. NULL: as
 * usual, from the seed; of a linear probe at zero. */
typedef struct {
  const float *w1, *b1, *w2, *b2;
} ec_start;

/* What a head learns: many heads may share one task (a sweep), a bank may hold many tasks (folds, columns).
 */
typedef struct {
  ec_view train, val; /* val.n may be 0: then the last epoch's weights are kept */
  int32_t outputs;    /* classes, labels or values: two or more for EC_KIND_CLASSES, one or more else */
  int32_t kind;
  const float* mean;         /* [dim] or NULL: the engine sees (x - mean) * inv_std ... */
  const float* inv_std;      /* [dim] or NULL; both or neither */
  const float* class_weight; /* [outputs] or NULL: weights of the validation loss, as in ec_head */
} ec_task;

/* Doubles, so that 1 - beta2 and the bias corrections are those of the numbers that the user wrote.
 *
 * Losses of a batch (losses/losses.h has the formulas), w = class_weight, or ones:
 *   EC_KIND_CLASSES, EC_LOSS_NLL  torch.nn.CrossEntropyLoss(weight=w, label_smoothing)
 *   EC_KIND_LABELS, EC_LOSS_NLL   torch.nn.BCEWithLogitsLoss(pos_weight=w), targets t (1 - smoothing) +
 *                                 smoothing / 2
 *   both, EC_LOSS_FOCAL           the same sums of -(1 - p)^gamma log p in place of -log p
 *   EC_KIND_NUMBERS, EC_LOSS_NLL  torch.nn.MSELoss; neither weights nor smoothing
 * Each row's part of a sum is multiplied by its sample_weight; what the sum is divided by is not, so weights
 * of mean 1 leave the step's size as it is, whatever rows a batch has.
 * The validation loss is EC_LOSS_NLL over all validation rows, with the task's weights and without smoothing,
 * whatever a head is trained by: heads are compared by one number. */
typedef struct {
  int32_t task;     /* index into tasks */
  int32_t hidden;   /* 0: a linear probe, logits = x w2' + b2, without dropout */
  int32_t schedule; /* of the learning rate, over epochs * steps, after a warm-up from 0 (numerics.h) */
  int32_t loss;     /* EC_LOSS_..., see losses/losses.h */
  double lr, beta1, beta2, eps, weight_decay, dropout; /* eps > 0; dropout in [0, 1) */
  double label_smoothing;                              /* in [0, 1) */
  double warmup;                                       /* share of all steps, in [0, 1) */
  double loss_setting;                                 /* of the loss; EC_LOSS_FOCAL: gamma, 0 or more */
  const float* class_weight;                           /* [outputs] or NULL: weights of the training loss */
  ec_start start;
  uint64_t seed;
} ec_head;

/* Filled by the engine, but for the weights' memory, which holds zeros when it is handed in (fresh pages do,
 * and nobody touches those twice). Weights are those of the best epoch (ec_options.choose), all of them
 * finite, and act on the standardized x. Epochs count from 0. A head that has no such epoch has best_epoch -1
 * and weights of zeros; with a best epoch whose weights are not all finite it is EC_HEAD_DIVERGED. */
typedef struct {
  float* w1;            /* [hidden, dim], NULL when hidden is 0 */
  float* b1;            /* [hidden], NULL when hidden is 0 */
  float* w2;            /* [outputs, hidden], or [outputs, dim] when hidden is 0 */
  float* b2;            /* [outputs] */
  double* train_loss;   /* [epochs], mean over the epoch's batches weighted by rows, dropout on; NaN: not
                           finished */
  double* val_loss;     /* [epochs], with the task's class_weight if there is one */
  double* val_accuracy; /* [epochs], 0..1: rows whose largest logit is their class; EC_KIND_LABELS: rows whose
                           labels are all right, a label being there where its logit is above 0;
                           EC_KIND_NUMBERS: NaN */
  double* val_f1; /* [epochs], 0..1: macro F1, the mean over the outputs that occur in either the rows or the
                     predictions; EC_KIND_NUMBERS: NaN */
  int32_t best_epoch, epochs_run, status;
} ec_result;

typedef struct {
  int32_t batch_size, epochs;
  int32_t early_stop; /* stop a head after this many epochs without a better one; 0: never */
  int32_t choose;  /* which epoch is the best on the validation rows: lowest loss, highest accuracy or macro
                      F1; equal scores: lowest loss, then the first. EC_KIND_NUMBERS: always the loss */
  int32_t threads; /* CPU only; 0: one per core that this process may use */
  int32_t compute;
  int32_t device;                 /* CUDA only: the device's number */
  uint64_t stream;                /* CUDA only: a cudaStream_t as an integer; 0: the default stream */
  const volatile int32_t* cancel; /* or NULL: the caller sets it to 1 to stop between steps */
  volatile int64_t* progress;     /* or NULL: [1], training rows finished, summed over heads */
} ec_options;

int32_t ec_abi_version(void);
const char* ec_backend(void);    /* what runs: "cpu-avx512", "cpu-avx2", "cpu-plain", "cuda" */
int32_t ec_device_count(void);   /* devices that can be used now; the CPU library says 1 */
const char* ec_last_error(void); /* of the calling thread; never NULL; after EC_OK a note on how, or empty */
int32_t ec_train(const ec_task* tasks, int32_t n_tasks, const ec_head* heads, ec_result* results,
                 int32_t n_heads, const ec_options* options);

#ifdef __cplusplus
}
#endif
#endif
