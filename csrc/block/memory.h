/* A block in training: its parameters, what a batch leaves behind for its way back, and a member's scratch.
 *
 * For B rows of a batch, whose vector is one row of the last layer, some 20 B D + 3 B F + 2 B H D floats; for
 * T tokens of a batch and each layer that is computed whole 8 T D + T F, and for all of them together 11 T D
 * + 2 T F; for each member one row's states, 4 L D bytes.
 */
#ifndef EMBEDCACHE_BLOCK_MEMORY_H
#define EMBEDCACHE_BLOCK_MEMORY_H

#include "../heads/cpu/epochs.h"
#include "every_row.h"
#include "jobs.h"
#include "slopes.h"

namespace EC_ISA {

using ec::Team;
using ec::team_barrier;

constexpr int64_t kGramRows = 32, kSquareRows = 48, kGramCost = 8; /* clip.h */

/* A sheet with a row for each head, [capacity][heads][stride]. */
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

/* Where a batch's texts have their tokens: row b's from begins[b] on, of `stride` numbers each. */
struct Tokens {
  const void* values;
  int64_t stride;
  int32_t dtype;
  int64_t* begins;
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
  int64_t batch, capacity, tokens, steps, longest;  /* capacity, tokens: the most of a batch, or val chunk */
  float scale;                                      /* of scores */
  int whole;                                        /* layers that are computed for every token */
  bool folded;                                      /* whether the last layer is computed for one row */
  bool deep() const { return folded && whole > 0; } /* then its states have gradients, too */
  Dropout drop_hidden;

  Layer* layers; /* from the lowest up */
  Layer* last;
  Matrix head1, head2;
  Vector head1_bias, head2_bias;

  /* Of layers for every token, rows are tokens, one text after another. */
  Pass* passes;       /* [whole] */
  Slopes tokens_back; /* of one layer after the other */

  /* Of the last layer for one row of each text, and of the head; first.out: the texts' vectors. */
  Pass first;
  Slopes first_back;
  Sheet rectified, logits;
  HeadSheet
      folded_query;     /* key weights folded into the queries; on the way back what they are multiplied by */
  HeadSheet mixed;      /* sums of the states by the shares */
  HeadSheet mixed_back; /* the gradient by them */
  float* shares;        /* [capacity][heads][longest, padded], below zero where dropped */
  float* share_sum;     /* [capacity][heads] */
  float* length;        /* [capacity], of vectors before they were scaled to 1 */
  Sheet value_bias_back, rectified_back;

  int64_t* rows;    /* [capacity], of the states */
  int64_t* offsets; /* [capacity + 1]: where a row's tokens begin among those of the batch */
  Tokens read;      /* by the last layer for one row */
  uint32_t* order;  /* [train.n] */
  uint64_t* sort_scratch;
  double* row_loss;   /* [capacity] */
  int32_t* row_right; /* [capacity] */
  double* squares;    /* [slots], clip.h */
  int64_t slots;
  float* val_logits; /* [val.n][outputs] of this epoch, where somebody asks */
  int64_t* counts;   /* [members][3][outputs] */
  int32_t* bad;      /* [members]: whether a weight that the member kept is not finite */
  volatile int32_t stop;
  char* scratch; /* of the members, each `scratch_bytes` */
  int64_t scratch_bytes;
};

/* What a member alone uses. */
struct Member {
  int number, size;
  WordMemory words;
  EveryRowMemory every;
  float* x;        /* [longest][row_stride(padded)], of one row */
  Pair* x_columns; /* bfloat16: pairs along columns [longest][...], and pairs of two tokens */
  Pair* x_rows;
  float* scores; /* [heads][longest, padded] */
  Pair* score_words;
  float* used;    /* [heads][longest, padded]: shares after dropout, where states have gradients, too */
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

/* Tokens of the batch's row b. */
static int64_t length_of(const Trainee& t, int64_t b) { return t.offsets[b + 1] - t.offsets[b]; }

/* ---- The tensors by their numbers, and what their gradients are made of ---- */

/* Numbers below EC_LAYER_TENSORS: of the last layer. */
static Tensor tensor_at(Trainee& t, int number) {
  if (number < EC_LAYER_TENSORS) return tensor_of(*t.last, number);
  switch (number) {
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

/* Of what is trained there. */
static int first_number(const Trainee& t) { return t.folded ? 0 : EC_LAYER_TENSORS; }

/* Keys and values of a layer that is computed for one row of each text have another x for each head. */
static const HeadSheet* by_head(const Trainee& t, int number) {
  return number == EC_BLOCK_KEY ? &t.folded_query : number == EC_BLOCK_VALUE ? &t.mixed : nullptr;
}

static Source source_at(const Trainee& t, int number) {
  const Rows<float> none = {nullptr, 0};
  switch (number) {
    case EC_BLOCK_KEY:
      return {t.first.q.rows(), none};
    case EC_BLOCK_VALUE:
      return {t.first_back.context.rows(), none};
    case EC_BLOCK_VALUE_BIAS:
      return {t.value_bias_back.rows(), none};
    case EC_BLOCK_HEAD1:
      return {t.rectified_back.rows(), t.first.out.rows()};
    case EC_BLOCK_HEAD1_BIAS:
      return {t.rectified_back.rows(), none};
    case EC_BLOCK_HEAD2:
      return {t.logits.rows(), t.hidden ? t.rectified.rows() : t.first.out.rows()};
    case EC_BLOCK_HEAD2_BIAS:
      return {t.logits.rows(), none};
    default:
      return source_of(t.first, t.first_back, number);
  }
}

/* ---- Memory ---- */

/* Also room for the gradients that clip.h keeps: of whole layers all, else where a batch's products with
 * itself would cost too much. */
static void take_parameters(Trainee& t, Arena& arena) {
  Layer spare = {}; /* where memory is only counted */
  t.layers = arena.take<Layer>(t.shape.layers);
  for (int k = 0; k < t.shape.layers; ++k) {
    Layer& layer = t.layers ? t.layers[k] : spare;
    layer.take(arena, t.dim, t.inner);
    if (k < t.whole) layer.take_gradients(arena);
  }
  t.last = t.layers ? &t.layers[t.shape.layers - 1] : nullptr;
  if (t.hidden) t.head1.take(arena, t.hidden, t.dim);
  if (t.hidden) t.head1_bias.take(arena, t.hidden);
  t.head2.take(arena, t.outputs, t.hidden ? t.hidden : t.dim);
  t.head2_bias.take(arena, t.outputs);
  Layer& last = t.last ? *t.last : spare;
  Matrix* const matrices[] = {&t.head1, &t.head2,   &last.query, &last.output,
                              &last.up, &last.down, &last.key,   &last.value};
  for (int i = 0; i < (t.folded ? 8 : 2); ++i) {
    Matrix& w = *matrices[i];
    const bool heads = i >= 6, none = t.spec.clip == 0 || w.out == 0;
    const bool keeps = heads || w.out % kLanes || kGramCost * t.batch * (w.out + w.in) > w.out * w.in;
    w.gradient = keeps && !none ? arena.take<float>(w.out * w.padded) : nullptr;
  }
}

/* Of every token: what each layer keeps, and what one hands to the next. A head narrower than its columns
 * writes over its neighbour, or over the row's end. */
static void take_tokens(Trainee& t, Arena& arena) {
  const int64_t n = t.tokens, inner = round_up(t.inner, kBlock), spare = kBlock;
  Pass none = {};
  Sheet act, out;
  t.passes = arena.take<Pass>(t.whole);
  act.take(arena, n, inner);
  Slopes& d = t.tokens_back;
  take_sheets(arena,
              {&d.out, &d.before2, &d.down, &d.middle, &d.before1, &d.output, &d.context, &d.q, &d.k, &d.v},
              n, t.padded, spare);
  d.act.take(arena, n, inner);
  out.take(arena, n, t.padded, spare);
  for (int k = t.whole - 1; k >= 0; --k) {
    Pass& p = t.passes ? t.passes[k] : none;
    p.every_row = true;
    take_sheets(arena, {&p.x, &p.q, &p.k, &p.v, &p.context, &p.normal1, &p.middle, &p.normal2}, n, t.padded,
                spare);
    p.before_act.take(arena, n, inner);
    p.scale1 = arena.take<float>(n);
    p.scale2 = arena.take<float>(n);
    p.act = act; /* made again on the way back */
    p.out = out;
    out = p.x;
  }
}

/* Of one row of each text, through the last layer. */
static void take_first(Trainee& t, Arena& arena) {
  const int64_t n = t.capacity, inner = round_up(t.inner, kBlock);
  Pass& p = t.first;
  Slopes& d = t.first_back;
  take_sheets(arena,
              {&p.x, &p.q, &p.context, &p.normal1, &p.middle, &p.normal2, &d.before2, &d.down, &d.middle,
               &d.output, &d.context, &t.value_bias_back, &d.q},
              n, t.padded);
  take_sheets(arena, {&p.before_act, &p.act, &d.act}, n, inner);
  t.folded_query.take(arena, n, t.heads, t.padded);
  t.mixed.take(arena, n, t.heads, t.padded);
  t.mixed_back = t.folded_query; /* which nobody needs then */
  if (t.whole > 0) {
    t.mixed_back.take(arena, n, t.heads, t.padded);
    d.before1.take(arena, n, t.padded);
  }
  t.shares = arena.take<float>(n * t.heads * share_stride(t));
  t.share_sum = arena.take<float>(n * t.heads);
  p.scale1 = arena.take<float>(n);
  p.scale2 = arena.take<float>(n);
}

static void take_batch(Trainee& t, Arena& arena) {
  const int64_t n = t.capacity, hidden = round_up(t.hidden, kBlock);
  t.first.out.take(arena, n, t.padded);
  t.first_back.out.take(arena, n, t.padded);
  if (t.whole > 0) take_tokens(t, arena);
  if (t.folded) take_first(t, arena);
  take_sheets(arena, {&t.rectified, &t.rectified_back}, n, hidden);
  t.logits.take(arena, n, round_up(t.outputs, kBlock));
  t.length = arena.take<float>(n);
  t.rows = arena.take<int64_t>(n);
  t.offsets = arena.take<int64_t>(n + 1);
  t.read.begins = arena.take<int64_t>(n);
  t.order = arena.take<uint32_t>(t.task.train.n);
  t.sort_scratch = arena.take<uint64_t>(2 * t.task.train.n);
  t.row_loss = arena.take<double>(n);
  t.row_right = arena.take<int32_t>(n);
  t.slots = n + EC_BLOCK_TENSORS + 2 * t.heads + (3 * t.dim + t.inner + t.hidden + t.outputs) / kSquareRows +
            EC_BLOCK_TENSORS +
            t.whole * (EC_LAYER_TENSORS + (5 * t.dim + t.inner) / kSquareRows + EC_LAYER_TENSORS);
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
  me.words.take(arena, larger(t.capacity, t.whole ? kManyRows : 2), round_up(widest, kBlock),
                t.whole ? kPanelInputs : 0);
  if (t.whole) me.every.take(arena, t.longest, t.head);
  if (t.deep()) me.used = arena.take<float>(t.heads * share_stride(t));
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
  t.capacity = order.rows;
  t.tokens = order.tokens;
  t.folded = t.shape.query != EC_QUERY_MEAN;
  t.whole = t.shape.layers - t.folded;
  t.longest = larger(longest_of(t.states, train), longest_of(t.states, val));
  t.train_loss =
      make_loss(t.task, t.spec.class_weight, t.spec.label_smoothing, {t.spec.loss, t.spec.loss_setting});
  t.val_loss = make_loss(t.task, t.task.class_weight, 0.0, {EC_LOSS_NLL, 0.0});
  t.drop_hidden = make_dropout(t.spec.seed, t.spec.head_dropout, EC_DOMAIN_DROPOUT);
}

/* Everything but the members' scratch, which each takes behind it. */
static void take_all(Trainee& t, Arena& arena) {
  take_parameters(t, arena);
  take_batch(t, arena);
}

/* Each layer draws from streams of its own: their numbers grow from the last layer down. */
static void make_dropouts(Trainee& t) {
  for (int k = 0; k < t.shape.layers; ++k) {
    const uint32_t above = EC_DOMAINS * (uint32_t)(t.shape.layers - 1 - k);
    const uint64_t seed = t.spec.seed;
    t.layers[k].drop_attention = make_dropout(seed, t.spec.hidden_dropout, above + EC_DOMAIN_ATTENTION);
    t.layers[k].drop_feed = make_dropout(seed, t.spec.hidden_dropout, above + EC_DOMAIN_FEED_FORWARD);
    t.layers[k].drop_shares = make_dropout(seed, t.spec.attention_dropout, above + EC_DOMAIN_SHARES);
  }
}

static Trainee* make_trainee(const ec::BlockOrder& order, Team* team, bool bfloat16) {
  Trainee counted = {};
  set_up(counted, order, team);
  Arena counting = {nullptr}, member = {nullptr};
  counting.take<Trainee>(1);
  take_all(counted, counting);
  take_member(counted, member, bfloat16, 0);
  counted.scratch_bytes = member.used;
  char* memory = static_cast<char*>(ec::memory_take(counting.used + ec::team_size(team) * member.used));
  if (!memory) return nullptr;
  Arena arena = {memory};
  Trainee* t = arena.take<Trainee>(1);
  *t = counted;
  take_all(*t, arena);
  make_dropouts(*t);
  t->read.values = t->deep() ? t->passes[t->whole - 1].out.data : t->states.values;
  t->read.stride = t->deep() ? t->passes[t->whole - 1].out.stride : t->dim;
  t->read.dtype = t->deep() ? EC_FLOAT32 : t->states.dtype;
  t->scratch = memory + arena.used;
  t->memory = memory;
  return t;
}

static Member make_member(const Trainee& t, bool bfloat16, int number) {
  Arena arena = {t.scratch + number * t.scratch_bytes};
  return take_member(t, arena, bfloat16, number);
}

}  // namespace EC_ISA

#endif
