/* A block in training: its parameters, what a batch leaves behind for its way back, and a member's scratch.
 *
 * 12 bytes a weight, 16 where its gradient is kept; for B rows of a batch some 20 B D + 3 B F + 2 B H D
 * floats; for each member one row's states, 4 L D bytes.
 */
#ifndef EMBEDCACHE_BLOCK_MEMORY_H
#define EMBEDCACHE_BLOCK_MEMORY_H

#include "../heads/cpu/epochs.h"
#include "dropout.h"
#include "jobs.h"
#include "matrix.h"
#include "slopes.h"

namespace EC_ISA {

using ec::Team;
using ec::team_barrier;

constexpr int64_t kFewestRows = 64;                                /* of a validation chunk */
constexpr int64_t kGramRows = 32, kSquareRows = 48, kGramCost = 8; /* clip.h */

/* Activations of a batch, [capacity][stride]. */
struct Sheet {
  float* data;
  int64_t stride;

  void take(Arena& arena, int64_t rows, int64_t padded) {
    stride = row_stride(padded);
    data = arena.take<float>(rows * stride + kStrip); /* vectors of a narrow head run over its end */
  }
  float* row(int64_t b) const { return data + b * stride; }
  Rows<float> rows(int64_t b = 0) const { return {row(b), stride}; }
};

/* The same with a row for each head, [capacity][heads][stride]. */
struct HeadSheet {
  Sheet sheet;
  int64_t heads;

  void take(Arena& arena, int64_t rows, int64_t count, int64_t padded) {
    heads = count;
    sheet.take(arena, rows * count, padded);
  }
  float* row(int64_t b, int64_t h = 0) const { return sheet.row(b * heads + h); }
  Rows<float> of_head(int64_t h) const { return {sheet.row(h), heads * sheet.stride}; }
};

struct Trainee : ec::BlockJob {
  ec_states states;
  ec_block_shape shape;
  ec_task task;
  ec_block spec;
  ec_block_options options;
  ec_block_result* result;
  Team* team;
  Loss train_loss, val_loss;

  int64_t dim, padded, inner, heads, head, hidden, outputs;
  int64_t batch, capacity, steps, longest;
  float scale; /* of scores */
  Dropout drop_attention, drop_feed, drop_shares, drop_hidden;

  Matrix query, key, value, output, up, down, head1, head2;
  Vector query_bias, value_bias, output_bias, norm1, norm1_bias, up_bias, down_bias, norm2, norm2_bias;
  Vector head1_bias, head2_bias;

  /* Forward, in the order in which it is made. */
  Sheet first, q, context, normal1, middle, before_act, act, normal2, out, rectified, logits;
  HeadSheet folded; /* key weights folded into the queries; on the way back what they are multiplied by */
  HeadSheet mixed;  /* sums of the states by the shares */
  float* shares;    /* [capacity][heads][longest, padded], below zero where dropped */
  float* share_sum; /* [capacity][heads] */
  float *scale1, *scale2; /* [capacity], of the LayerNorms */
  /* Gradients by: the block's vector, the outputs of `down`, before `act`, `middle`, the outputs of `output`,
   * `context`, it times share_sum, q, and the head's hidden units. */
  Sheet d_out, d_before2, d_down, d_act, d_middle, d_output, d_context, d_value_bias, d_q, d_rectified;

  int64_t* rows;   /* [capacity], of the states */
  uint32_t* order; /* [train.n] */
  uint64_t* sort_scratch;
  double* row_loss;   /* [capacity] */
  int32_t* row_right; /* [capacity] */
  double* squares;    /* [slots], clip.h */
  int64_t slots;
  float* val_logits; /* [val.n][outputs] of this epoch, where somebody asks */
  int64_t* counts;   /* [members][3][outputs] */
  int32_t* bad;      /* [members]: whether a weight that the member kept is not finite */
  volatile int32_t stop;
};

/* What a member alone uses. */
struct Member {
  int number, size;
  WordMemory words;
  float* x;        /* [longest][row_stride(padded)], of one row */
  Pair* x_columns; /* bfloat16: pairs along columns [longest][...], and pairs of two tokens */
  Pair* x_rows;
  float* scores; /* [heads][longest, padded] */
  Pair* score_words;
  float* each;    /* [heads] */
  float* gram[2]; /* [kGramRows][capacity] */
  double* e;      /* [outputs] */
  int64_t* counts;
};

static int64_t share_stride(const Trainee& t) { return round_up(t.longest, kBlock); }

/* The member's part of [0, n), in multiples of `unit`. */
static Range part_of(const Member& me, int64_t n, int64_t unit) {
  const int64_t units = (n + unit - 1) / unit, first = units * me.number / me.size * unit,
                last = units * (me.number + 1) / me.size * unit;
  return {first < n ? first : n, last < n ? last : n};
}

static int64_t length_of(const Trainee& t, int64_t row) { return t.states.lengths[row]; }

/* ---- The tensors by their numbers, and what their gradients are made of ---- */

struct Tensor {
  Matrix* matrix; /* or */
  Vector* vector;
};

static Tensor tensor_at(Trainee& t, int number) {
  switch (number) {
    case EC_BLOCK_QUERY:
      return {&t.query, nullptr};
    case EC_BLOCK_QUERY_BIAS:
      return {nullptr, &t.query_bias};
    case EC_BLOCK_KEY:
      return {&t.key, nullptr};
    case EC_BLOCK_VALUE:
      return {&t.value, nullptr};
    case EC_BLOCK_VALUE_BIAS:
      return {nullptr, &t.value_bias};
    case EC_BLOCK_OUTPUT:
      return {&t.output, nullptr};
    case EC_BLOCK_OUTPUT_BIAS:
      return {nullptr, &t.output_bias};
    case EC_BLOCK_NORM1:
      return {nullptr, &t.norm1};
    case EC_BLOCK_NORM1_BIAS:
      return {nullptr, &t.norm1_bias};
    case EC_BLOCK_UP:
      return {&t.up, nullptr};
    case EC_BLOCK_UP_BIAS:
      return {nullptr, &t.up_bias};
    case EC_BLOCK_DOWN:
      return {&t.down, nullptr};
    case EC_BLOCK_DOWN_BIAS:
      return {nullptr, &t.down_bias};
    case EC_BLOCK_NORM2:
      return {nullptr, &t.norm2};
    case EC_BLOCK_NORM2_BIAS:
      return {nullptr, &t.norm2_bias};
    case EC_BLOCK_HEAD1:
      return {t.hidden ? &t.head1 : nullptr, nullptr};
    case EC_BLOCK_HEAD1_BIAS:
      return {nullptr, t.hidden ? &t.head1_bias : nullptr};
    case EC_BLOCK_HEAD2:
      return {&t.head2, nullptr};
    default:
      return {nullptr, &t.head2_bias};
  }
}

/* The gradient of a matrix is sum_b y[b] x[b]', of a vector sum_b y[b], times x[b] where there is one. Keys
 * and values have another x for each head. */
struct Source {
  Rows<float> y, x;
  const HeadSheet* by_head;
};

static Source source_of(const Trainee& t, int number) {
  const Rows<float> none = {nullptr, 0}, top = t.hidden ? t.rectified.rows() : t.out.rows();
  switch (number) {
    case EC_BLOCK_QUERY:
      return {t.d_q.rows(), t.first.rows(), nullptr};
    case EC_BLOCK_QUERY_BIAS:
      return {t.d_q.rows(), none, nullptr};
    case EC_BLOCK_KEY:
      return {t.q.rows(), none, &t.folded};
    case EC_BLOCK_VALUE:
      return {t.d_context.rows(), none, &t.mixed};
    case EC_BLOCK_VALUE_BIAS:
      return {t.d_value_bias.rows(), none, nullptr};
    case EC_BLOCK_OUTPUT:
      return {t.d_output.rows(), t.context.rows(), nullptr};
    case EC_BLOCK_OUTPUT_BIAS:
      return {t.d_output.rows(), none, nullptr};
    case EC_BLOCK_NORM1:
      return {t.d_middle.rows(), t.normal1.rows(), nullptr};
    case EC_BLOCK_NORM1_BIAS:
      return {t.d_middle.rows(), none, nullptr};
    case EC_BLOCK_UP:
      return {t.d_act.rows(), t.middle.rows(), nullptr};
    case EC_BLOCK_UP_BIAS:
      return {t.d_act.rows(), none, nullptr};
    case EC_BLOCK_DOWN:
      return {t.d_down.rows(), t.act.rows(), nullptr};
    case EC_BLOCK_DOWN_BIAS:
      return {t.d_down.rows(), none, nullptr};
    case EC_BLOCK_NORM2:
      return {t.d_out.rows(), t.normal2.rows(), nullptr};
    case EC_BLOCK_NORM2_BIAS:
      return {t.d_out.rows(), none, nullptr};
    case EC_BLOCK_HEAD1:
      return {t.d_rectified.rows(), t.out.rows(), nullptr};
    case EC_BLOCK_HEAD1_BIAS:
      return {t.d_rectified.rows(), none, nullptr};
    case EC_BLOCK_HEAD2:
      return {t.logits.rows(), top, nullptr};
    default:
      return {t.logits.rows(), none, nullptr};
  }
}

/* ---- Memory ---- */

static void take_parameters(Trainee& t, Arena& arena) {
  t.query.take(arena, t.dim, t.dim);
  t.key.take(arena, t.dim, t.dim);
  t.value.take(arena, t.dim, t.dim);
  t.output.take(arena, t.dim, t.dim);
  t.up.take(arena, t.inner, t.dim);
  t.down.take(arena, t.dim, t.inner);
  Vector* const wide[] = {&t.query_bias, &t.value_bias, &t.output_bias, &t.norm1,
                          &t.norm1_bias, &t.down_bias,  &t.norm2,       &t.norm2_bias};
  for (Vector* v : wide) v->take(arena, t.dim);
  t.up_bias.take(arena, t.inner);
  if (t.hidden) t.head1.take(arena, t.hidden, t.dim);
  if (t.hidden) t.head1_bias.take(arena, t.hidden);
  t.head2.take(arena, t.outputs, t.hidden ? t.hidden : t.dim);
  t.head2_bias.take(arena, t.outputs);
}

/* Room for the gradients that clip.h keeps: where a batch's products with itself would cost too much. */
static void take_gradients(Trainee& t, Arena& arena) {
  Matrix* const matrices[] = {&t.query, &t.output, &t.up, &t.down, &t.head1, &t.head2, &t.key, &t.value};
  for (int i = 0; i < 8; ++i) {
    Matrix& w = *matrices[i];
    const bool by_head = i >= 6, none = t.spec.clip == 0 || w.out == 0;
    const bool keeps = by_head || w.out % kLanes || kGramCost * t.batch * (w.out + w.in) > w.out * w.in;
    w.gradient = keeps && !none ? arena.take<float>(w.out * w.padded) : nullptr;
  }
}

static void take_batch(Trainee& t, Arena& arena) {
  const int64_t n = t.capacity, inner = round_up(t.inner, kBlock), hidden = round_up(t.hidden, kBlock);
  Sheet* const wide[] = {&t.first,    &t.q,        &t.context,   &t.normal1,      &t.middle,
                         &t.normal2,  &t.out,      &t.d_out,     &t.d_before2,    &t.d_down,
                         &t.d_middle, &t.d_output, &t.d_context, &t.d_value_bias, &t.d_q};
  for (Sheet* s : wide) s->take(arena, n, t.padded);
  Sheet *const widest[] = {&t.before_act, &t.act, &t.d_act}, *const of_head[] = {&t.rectified,
                                                                                 &t.d_rectified};
  for (Sheet* s : widest) s->take(arena, n, inner);
  for (Sheet* s : of_head) s->take(arena, n, hidden);
  t.logits.take(arena, n, round_up(t.outputs, kBlock));
  t.folded.take(arena, n, t.heads, t.padded);
  t.mixed.take(arena, n, t.heads, t.padded);
  t.shares = arena.take<float>(n * t.heads * share_stride(t));
  t.share_sum = arena.take<float>(n * t.heads);
  t.scale1 = arena.take<float>(n);
  t.scale2 = arena.take<float>(n);
  t.rows = arena.take<int64_t>(n);
  t.order = arena.take<uint32_t>(t.task.train.n);
  t.sort_scratch = arena.take<uint64_t>(2 * t.task.train.n);
  t.row_loss = arena.take<double>(n);
  t.row_right = arena.take<int32_t>(n);
  t.slots = n + EC_BLOCK_TENSORS + 2 * t.heads + (3 * t.dim + t.inner + t.hidden + t.outputs) / kSquareRows +
            EC_BLOCK_TENSORS;
  t.squares = arena.take<double>(t.slots);
  t.val_logits = arena.take<float>(t.result->val_logits ? t.task.val.n * t.outputs : 0);
  t.counts = arena.take<int64_t>(ec::team_size(t.team) * 3 * t.outputs);
  t.bad = arena.take<int32_t>(ec::team_size(t.team));
}

static Member take_member(const Trainee& t, Arena& arena, bool bfloat16, int number) {
  Member me = {};
  me.number = number;
  me.size = ec::team_size(t.team);
  const int64_t tokens = (t.longest + 1) / 2 * 2,
                widest = larger(larger(t.dim, t.inner), larger(t.hidden, t.outputs));
  me.words.take(arena, larger(t.capacity, 2), round_up(widest, kBlock));
  me.x = arena.take<float>((bfloat16 ? 2 : tokens) * row_stride(t.padded) + kStrip);
  if (bfloat16) {
    me.x_columns = arena.take<Pair>(tokens * row_stride(t.padded / 2));
    me.x_rows = arena.take<Pair>(tokens / 2 * row_stride(t.padded));
    me.score_words = arena.take<Pair>(t.heads * larger(share_stride(t), row_stride(t.padded / 2)));
  }
  me.scores = arena.take<float>(t.heads * share_stride(t) + kStrip);
  me.each = arena.take<float>(t.heads);
  for (float*& gram : me.gram) gram = arena.take<float>(t.spec.clip > 0 ? kGramRows * t.capacity : 0);
  me.e = arena.take<double>(t.outputs);
  me.counts = t.counts ? t.counts + number * 3 * t.outputs : nullptr;
  return me;
}

static int64_t longest_of(const ec_states& states, const ec_view& view) {
  int64_t longest = 1;
  for (int64_t i = 0; i < view.n; ++i) longest = larger(longest, states.lengths[view.rows[i]]);
  return longest;
}

static void set_up(Trainee& t, const ec::BlockOrder& order, Team* team) {
  t.states = *order.states;
  t.shape = *order.shape;
  t.task = *order.task;
  t.spec = *order.block;
  t.options = *order.options;
  t.result = order.result;
  t.team = team;
  t.dim = t.states.dim;
  t.padded = round_up(t.dim, kBlock);
  t.inner = t.shape.inner;
  t.heads = t.shape.heads;
  t.head = t.dim / t.heads;
  t.hidden = t.spec.hidden;
  t.outputs = t.task.outputs;
  t.scale = 1.0f / sqrtf((float)t.head);
  const ec_view &train = t.task.train, &val = t.task.val;
  t.batch = t.spec.batch_size < train.n ? t.spec.batch_size : train.n;
  t.steps = (train.n + t.batch - 1) / t.batch;
  t.capacity = larger(t.batch, val.n < kFewestRows ? val.n : kFewestRows);
  t.longest = larger(longest_of(t.states, train), longest_of(t.states, val));
  t.train_loss =
      make_loss(t.task, t.spec.class_weight, t.spec.label_smoothing, {t.spec.loss, t.spec.loss_setting});
  t.val_loss = make_loss(t.task, t.task.class_weight, 0.0, {EC_LOSS_NLL, 0.0});
  t.drop_attention = make_dropout(t.spec.seed, t.spec.hidden_dropout, EC_DOMAIN_ATTENTION);
  t.drop_feed = make_dropout(t.spec.seed, t.spec.hidden_dropout, EC_DOMAIN_FEED_FORWARD);
  t.drop_shares = make_dropout(t.spec.seed, t.spec.attention_dropout, EC_DOMAIN_SHARES);
  t.drop_hidden = make_dropout(t.spec.seed, t.spec.head_dropout, EC_DOMAIN_DROPOUT);
}

/* A team's members take their scratch behind everything else, each as much. */
static int64_t member_bytes(const Trainee& t, bool bfloat16) {
  Arena counting = {nullptr};
  take_member(t, counting, bfloat16, 0);
  return counting.used;
}

static Trainee* make_trainee(const ec::BlockOrder& order, Team* team, bool bfloat16) {
  Trainee counted = {};
  set_up(counted, order, team);
  Arena counting = {nullptr};
  counting.take<Trainee>(1);
  take_parameters(counted, counting);
  take_gradients(counted, counting);
  take_batch(counted, counting);
  const int64_t own = counting.used, each = member_bytes(counted, bfloat16);
  char* memory = static_cast<char*>(ec::memory_take(own + ec::team_size(team) * each));
  if (!memory) return nullptr;
  Arena arena = {memory};
  Trainee* t = arena.take<Trainee>(1);
  *t = counted;
  take_parameters(*t, arena);
  take_gradients(*t, arena);
  take_batch(*t, arena);
  t->memory = memory;
  return t;
}

static Member make_member(const Trainee& t, bool bfloat16, int number) {
  Trainee counted = t;
  Arena counting = {nullptr};
  counting.take<Trainee>(1);
  take_parameters(counted, counting);
  take_gradients(counted, counting);
  take_batch(counted, counting);
  Arena arena = {static_cast<char*>(t.memory) + counting.used + number * member_bytes(t, bfloat16)};
  return take_member(t, arena, bfloat16, number);
}

}  // namespace EC_ISA

#endif
