/* A block from its start to its best epoch, by a team of one or more threads.
 *
 * Whatever a member computes is an element that nobody else adds to, or a row of it, in an order that depends
 * on shapes alone: the same bits on every number of threads, alone or in a bank.
 */
#ifndef EMBEDCACHE_BLOCK_TRAIN_H
#define EMBEDCACHE_BLOCK_TRAIN_H

#include "clip.h"

namespace EC_ISA {

/* ---- A step ---- */

static int64_t batch_rows(const Trainee& t, int64_t i) {
  const int64_t left = t.task.train.n - i * t.batch;
  return left < t.batch ? left : t.batch;
}

/* Losses of the member's rows; their logits become the gradient by them. */
static void lose(const Trainee& t, const Member& me, int64_t n) {
  double weight = 0;
  for (int64_t b = 0; b < n; ++b) weight += row_weight(t.train_loss, t.task.train, t.rows[b]);
  const Range rows = part_of(me, n, 1);
  for (int64_t b = rows.first; b < rows.last; ++b)
    t.row_loss[b] =
        loss_and_gradient(t.train_loss, t.task.train, t.rows[b], t.logits.row(b), 1.0 / weight, me.e);
}

/* What AdamW does with a tensor in this step. */
static Learn learn_at(const Trainee& t, const Tensor& tensor, bool head, int64_t step, float scale) {
  const double factor = ec_lr_factor(t.spec.schedule, t.spec.warmup, step, t.steps * t.spec.epochs);
  const double lr = (head ? t.spec.head_lr : t.spec.lr) * factor,
               decay = tensor.matrix ? t.spec.weight_decay : 0.0;
  return {ec_adamw_at(lr, t.spec.beta1, t.spec.beta2, t.spec.eps, decay, step + 1), scale};
}

/* The head, and the last layer where it is computed for one row. */
template <class Word>
static void learn_last(Trainee& t, const Member& me, int64_t n, int64_t step, float scale) {
  for (int number = first_number(t); number < EC_BLOCK_TENSORS; ++number) {
    const Tensor tensor = tensor_at(t, number);
    const Source source = source_at(t, number);
    const bool head = number >= EC_LAYER_TENSORS;
    const Learn learn = learn_at(t, tensor, head, step, scale);
    if (tensor.vector && number % me.size == me.number)
      learn_vector(*tensor.vector, source.y, source.x.data, n, learn);
    if (!tensor.matrix) continue;
    const Matrix& w = *tensor.matrix;
    const Range outs = part_of(me, w.out, kRows);
    if (w.gradient) { /* clip.h kept it */
      learn_kept(w, part_of(me, w.out, 1), learn);
    } else if (head) {
      gradient<float>(w, outs, source.x, {source.y.data + outs.first, source.y.stride}, n, me.words, learn);
    } else if (const HeadSheet* x = by_head(t, number)) {
      const Range heads = heads_of(me, t);
      for (int64_t h = heads.first; h < heads.last; ++h)
        gradient<Word>(w, outs_of(t, h), x->of_head(h), {source.y.data + h * t.head, source.y.stride}, n,
                       me.words, learn);
    } else {
      gradient<Word>(w, outs, source.x, {source.y.data + outs.first, source.y.stride}, n, me.words, learn);
    }
  }
}

/* Layers for every token, whose gradients are kept. */
static void learn_every(Trainee& t, const Member& me, int64_t step, float scale) {
  for (int k = 0; k < t.whole; ++k)
    for (int number = 0; number < EC_LAYER_TENSORS; ++number) {
      const Tensor tensor = tensor_of(t.layers[k], number);
      const Learn learn = learn_at(t, tensor, false, step, scale);
      if (tensor.matrix) learn_kept(*tensor.matrix, part_of(me, tensor.matrix->out, 1), learn);
      if (tensor.vector && number % me.size == me.number) learn_kept(*tensor.vector, learn);
    }
}

/* By one member: n rows of a view are the batch now. */
static void take_rows(Trainee& t, int64_t n) {
  t.offsets[0] = 0;
  for (int64_t b = 0; b < n; ++b) {
    t.offsets[b + 1] = t.offsets[b] + t.states.lengths[t.rows[b]];
    t.read.begins[b] = t.deep() ? t.offsets[b] : t.states.begins[t.rows[b]];
  }
}

/* Back through the layers, from the gradient by the last one's output. */
template <class Word>
static void back_through_layers(const Trainee& t, const Member& me, int64_t n, int64_t step) {
  if (t.folded) back_through_first<Word>(t, me, n, step);
  for (int k = t.whole - 1; k >= 0; --k) back_through_every<Word>(t, k, me, n, step);
}

/* Returns the loss before the step, and adds the gradient's norm to *norm, where it is clipped. */
template <class Word>
static double train_step(Trainee& t, const Member& me, int64_t i, int64_t step, double* norm) {
  const int64_t n = batch_rows(t, i);
  if (me.number == 0) {
    for (int64_t b = 0; b < n; ++b) t.rows[b] = t.task.train.rows[t.order[i * t.batch + b]];
    take_rows(t, n);
  }
  team_barrier(t.team);
  const Range rows = part_of(me, n, 1);
  forward_layers<Word>(t, me, n, step);
  forward_head(t, me, rows, step);
  lose(t, me, n);
  back_from_head(t, me, rows);
  if (t.folded) back_from_norm2(t, *t.last, t.first, t.first_back, rows, step);
  team_barrier(t.team);
  double loss = 0;
  for (int64_t b = 0; b < n; ++b) loss += t.row_loss[b];
  if (!isfinite(loss)) return loss;
  back_through_layers<Word>(t, me, n, step);
  float scale = 1.0f;
  if (t.spec.clip > 0) {
    square_gradients<Word>(t, me, n);
    team_barrier(t.team);
    const double length = norm_of(t, n);
    *norm += length;
    if (t.spec.clip < length + 1e-6) scale = (float)(t.spec.clip / (length + 1e-6)); /* as clip_grad_norm_ */
  }
  learn_last<Word>(t, me, n, step, scale);
  learn_every(t, me, step, scale);
  if (me.number == 0) {
    if (t.options.progress) __atomic_fetch_add(const_cast<int64_t*>(t.options.progress), n, __ATOMIC_RELAXED);
    t.stop = t.options.cancel && *t.options.cancel;
  }
  team_barrier(t.team);
  return loss;
}

template <class Word>
static int train_epoch(Trainee& t, const Member& me, int64_t epoch, double* mean, double* norm) {
  if (me.number == 0) ec::shuffle(t.spec.seed, (uint32_t)epoch, t.task.train.n, t.order, t.sort_scratch);
  double sum = 0, norms = 0;
  for (int64_t i = 0; i < t.steps; ++i) {
    const double loss = train_step<Word>(t, me, i, epoch * t.steps + i, &norms);
    if (!isfinite(loss)) return EC_HEAD_DIVERGED;
    if (t.stop) return EC_HEAD_CANCELLED;
    sum += loss * (double)batch_rows(t, i);
  }
  *mean = sum / (double)t.task.train.n;
  if (t.spec.clip > 0) *norm = norms / (double)t.steps;
  return EC_HEAD_OK;
}

/* ---- Validation ---- */

/* Some validation rows, dropout off: losses and right answers of the member's own. */
template <class Word>
static void validate_chunk(Trainee& t, const Member& me, int64_t start, int64_t n) {
  const ec_view& val = t.task.val;
  team_barrier(t.team); /* the last chunk's rows are no longer read */
  if (me.number == 0) {
    for (int64_t b = 0; b < n; ++b) t.rows[b] = val.rows[start + b];
    take_rows(t, n);
  }
  team_barrier(t.team);
  const Range rows = part_of(me, n, 1);
  forward_layers<Word>(t, me, n, -1);
  forward_head(t, me, rows, -1);
  for (int64_t b = rows.first; b < rows.last; ++b) {
    float* logits = t.logits.row(b);
    if (t.result->val_logits)
      memcpy(t.val_logits + (start + b) * t.outputs, logits, (size_t)t.outputs * sizeof(float));
    t.row_right[b] = count_row(t.val_loss, val, t.rows[b], logits, me.counts);
    t.row_loss[b] = loss_and_gradient(t.val_loss, val, t.rows[b], logits, 1.0, me.e);
  }
  team_barrier(t.team);
}

template <class Word>
static Scores validate(Trainee& t, const Member& me) {
  const ec_view& val = t.task.val;
  memset(me.counts, 0, sizeof(int64_t) * 3 * (size_t)t.outputs);
  Validation sum = {0, 0, 0};
  for (int64_t start = 0; start < val.n; start += t.capacity) {
    const int64_t n = val.n - start < t.capacity ? val.n - start : t.capacity;
    validate_chunk<Word>(t, me, start, n);
    for (int64_t b = 0; b < n; ++b) {
      sum.loss += t.row_loss[b];
      sum.right += t.row_right[b];
      sum.weight += row_weight(t.val_loss, val, val.rows[start + b]);
    }
  }
  team_barrier(t.team);
  return scores_of(t.val_loss, sum, val.n, t.counts, me.size);
}

/* ---- Weights in and out ---- */

/* The tensors of all layers, from the lowest up, and of the head: as the caller's pointers to them. */
static int64_t tensors_in(const Trainee& t) { return ec_block_tensors(&t.shape); }
static Tensor any_tensor(Trainee& t, int64_t i) {
  const int64_t below = tensors_in(t) - EC_BLOCK_TENSORS;
  return i < below ? tensor_of(t.layers[i / EC_LAYER_TENSORS], (int)(i % EC_LAYER_TENSORS))
                   : tensor_at(t, (int)(i - below));
}

static void start_weights(Trainee& t, const Member& me) {
  for (int64_t i = 0; i < tensors_in(t); ++i) {
    const Tensor tensor = any_tensor(t, i);
    const float* from = t.spec.start[i];
    if (tensor.matrix) put_rows(*tensor.matrix, from, part_of(me, tensor.matrix->out, 1));
    if (tensor.vector && me.number == 0)
      memcpy(tensor.vector->at.w, from, (size_t)tensor.vector->n * sizeof(float));
  }
}

/* The weights are the best so far, and so are their validation logits. */
static void keep_weights(Trainee& t, const Member& me) {
  bool finite = true;
  for (int64_t i = 0; i < tensors_in(t); ++i) {
    const Tensor tensor = any_tensor(t, i);
    float* to = t.result->best[i];
    if (tensor.matrix) finite &= get_rows(*tensor.matrix, to, part_of(me, tensor.matrix->out, 1));
    if (!tensor.vector || me.number) continue;
    memcpy(to, tensor.vector->at.w, (size_t)tensor.vector->n * sizeof(float));
    finite &= all_finite(to, tensor.vector->n);
  }
  t.bad[me.number] = !finite;
  if (t.result->val_logits && me.number == 0)
    memcpy(t.result->val_logits, t.val_logits, (size_t)(t.task.val.n * t.outputs) * sizeof(float));
}

static void clear_weights(Trainee& t) {
  for (int64_t i = 0; i < tensors_in(t); ++i) {
    const Tensor tensor = any_tensor(t, i);
    const int64_t n = tensor.matrix   ? tensor.matrix->out * tensor.matrix->in
                      : tensor.vector ? tensor.vector->n
                                      : 0;
    if (n) memset(t.result->best[i], 0, (size_t)n * sizeof(float));
  }
}

/* ---- The whole of it ---- */

template <class Word>
static void train_block(ec::BlockJob* job, int number) {
  Trainee& t = *static_cast<Trainee*>(job);
  const Member me = make_member(t, kPer<Word> == 2, number);
  const bool validated = t.task.val.n > 0;
  ec_block_result& result = *t.result;
  ec_options limits = {};
  limits.epochs = t.spec.epochs;
  limits.early_stop = t.spec.early_stop;
  limits.choose = t.options.choose;
  Course course = new_course();
  start_weights(t, me);
  team_barrier(t.team);
  if (t.spec.epochs == 0) {
    if (validated) validate<Word>(t, me);
    keep_weights(t, me);
    course.over = true;
    course.best = 0;
  }
  while (!course.over) {
    double loss = NAN, norm = NAN;
    const int status = train_epoch<Word>(t, me, course.epochs, &loss, &norm);
    if (status != EC_HEAD_OK) {
      break_off(course, status);
      break;
    }
    const Scores val = validated ? validate<Word>(t, me) : kNoScores;
    if (number == 0) {
      result.train_loss[course.epochs] = loss;
      result.norm[course.epochs] = norm;
      result.val_loss[course.epochs] = val.loss;
      result.val_accuracy[course.epochs] = val.accuracy;
      result.val_f1[course.epochs] = val.f1;
    }
    if (end_epoch(course, limits, validated, val)) keep_weights(t, me);
  }
  team_barrier(t.team);
  if (number > 0) return;
  bool bad = false;
  for (int i = 0; i < me.size; ++i) bad |= t.bad[i] != 0;
  if (course.best >= 0 && bad) {
    reject_weights(course);
    clear_weights(t);
  }
  result.best_epoch = course.best;
  result.epochs_run = course.epochs;
  result.status = course.status;
}

}  // namespace EC_ISA

#endif
