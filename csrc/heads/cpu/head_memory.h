/* A head's memory in one piece, its initial weights, and its best weights' way back to row-major.
 *
 * Included by head.h. The state is 12 bytes a weight; beside it lie three batches of x, the activations,
 * partial logits (16 MiB at most, or one slice) and a member's scratch.
 */
#ifndef EMBEDCACHE_CPU_HEAD_MEMORY_H
#define EMBEDCACHE_CPU_HEAD_MEMORY_H

namespace EC_ISA {

static int64_t val_rows(const Head& h) { return h.task.val.n > 0 ? kValRows : 0; }

static Member lay_out_member(const Head& h, Arena& arena) {
  const int64_t rows = larger(h.batch, val_rows(h)), val = val_rows(h);
  const bool shared = shared_loss(h);
  Member me;
  me.number = me.first_slice = me.last_slice = 0;
  me.z = arena.take<float>(rows * kBlock);
  me.dz = arena.take<float>(rows * kBlock);
  me.dz_pairs = arena.take<Pair>(h.bfloat16 ? (h.batch + 1) / 2 * kBlock : 0);
  me.two_rows = arena.take<float>(h.bfloat16 ? h.x_blocks * 2 * kBlock : 0);
  me.dlogits = shared ? h.dlogits : arena.take<float>(h.batch * h.classes);
  me.row_loss = shared ? h.row_loss : arena.take<double>(h.batch);
  me.e = arena.take<double>(h.classes);
  me.counts = nullptr;
  me.keep = arena.take<uint32_t>(2 * h.batch);
  me.rows = arena.take<int64_t>(rows);
  me.val_x = arena.take<float>(val ? h.x_blocks * (val + 1) * kBlock : 0);
  me.val_logits = arena.take<float>(2 * val * h.classes);
  return me;
}

static void lay_out(Head& h, Arena& arena) {
  const int64_t chunks = (h.task.val.n + kValRows - 1) / kValRows;
  const bool shared = shared_loss(h);
  arena.take<Head>(1);
  h.w1 = take_parameter(arena, h.blocks * h.x_blocks * kBlock * kBlock);
  h.b1 = take_parameter(arena, h.blocks * kBlock);
  h.w2 = take_parameter(arena, h.blocks * h.classes * kBlock);
  h.b2 = take_parameter(arena, h.classes);
  lay_out_batches(h, arena);
  h.a = arena.take<float>(h.blocks * h.batch * kBlock);
  for (float*& partial : h.partial) partial = arena.take<float>(h.slices * h.batch * h.classes);
  h.dlogits = shared ? arena.take<float>(h.batch * h.classes) : nullptr;
  h.row_loss = shared ? arena.take<double>(h.batch) : nullptr;
  h.validation = arena.take<Validation>(chunks);
  h.counts = arena.take<int64_t>(chunks ? 3 * h.classes * ec::team_size(h.team) : 0);
  h.bad = arena.take<int32_t>(ec::team_size(h.team));
  const int64_t before = arena.used;
  h.member_memory = arena.memory ? arena.memory + before : nullptr;
  lay_out_member(h, arena);
  h.member_bytes = arena.used - before;
  arena.used = before + h.member_bytes * ec::team_size(h.team);
}

static Head* head_create(const ec_task& task, const ec_head& spec, ec_result* result,
                         const ec_options& options, Team* team) {
  Head h = {};
  make_batches(h, task, options, team, spec.seed, options.compute == EC_COMPUTE_BFLOAT16);
  h.train = train_head;
  h.spec = spec;
  h.result = result;
  h.dim = task.train.x.dim;
  h.hidden = spec.hidden;
  h.classes = task.outputs;
  h.train_loss = make_loss(task, spec.class_weight, spec.label_smoothing, {spec.loss, spec.loss_setting});
  h.val_loss = make_loss(task, task.class_weight, 0.0, {EC_LOSS_NLL, 0.0});
  h.blocks = (h.hidden + kBlock - 1) / kBlock;
  h.slices = ec::head_slices(h.hidden, h.classes, h.batch);
  h.dropout_threshold = ec_dropout_threshold(spec.dropout);
  h.dropout_scale = ec_dropout_scale(spec.dropout);
  Arena count = {nullptr};
  lay_out(h, count);
  Arena arena = {static_cast<char*>(ec::memory_take(count.used))};
  if (!arena.memory) return nullptr;
  h.memory = arena.memory;
  lay_out(h, arena);
  Head* made = reinterpret_cast<Head*>(arena.memory);
  *made = h;
  return made;
}

static Member member_of(const Head& h, int number) {
  Arena arena = {h.member_memory + number * h.member_bytes};
  Member me = lay_out_member(h, arena);
  const int size = ec::team_size(h.team);
  me.number = number;
  me.counts = h.counts + number * 3 * h.classes;
  me.first_slice = (int)share(h.slices, number, size);
  me.last_slice = (int)share(h.slices, number + 1, size);
  return me;
}

/* Row-major element (unit, k) of a layer that lies in panels [units / 32][inputs][32]. */
static int64_t panel_place(int64_t unit, int64_t k, int64_t inputs) {
  return (unit / kBlock * inputs + k) * kBlock + unit % kBlock;
}

/* Element (class, input) of the second layer, [inputs / 32][classes][32]. */
static int64_t second_place(int64_t c, int64_t input, int64_t classes) {
  return (input / kBlock * classes + c) * kBlock + input % kBlock;
}

/* Each member sets the blocks that it owns, which the others first read after a barrier. */
static void init_weights(const Head& h, const Member& me) {
  const int64_t first = slice_start(h, me.first_slice) * kBlock, inputs = h.hidden;
  const int64_t end = slice_start(h, me.last_slice) * kBlock, last = end < inputs ? end : inputs;
  const float bound1 = ec_init_bound(h.dim), bound2 = ec_init_bound(inputs);
  const uint64_t seed = h.spec.seed;
  const ec_start& start = h.spec.start;
  const int64_t padded = h.x_blocks * kBlock;
  for (int64_t unit = first; unit < last; ++unit)
    init_elements(start.w1, seed, EC_TENSOR_W1, unit * h.dim, h.dim, bound1,
                  [&](int64_t k) { return h.w1.w + panel_place(unit, k, padded); });
  init_elements(start.b1, seed, EC_TENSOR_B1, first, last - first, bound1,
                [&](int64_t i) { return h.b1.w + first + i; });
  for (int64_t c = 0; c < h.classes; ++c)
    init_elements(start.w2, seed, EC_TENSOR_W2, c * inputs + first, last - first, bound2,
                  [&](int64_t i) { return h.w2.w + second_place(c, first + i, h.classes); });
  if (me.first_slice == 0)
    init_elements(start.b2, seed, EC_TENSOR_B2, 0, h.classes, bound2, [&](int64_t i) { return h.b2.w + i; });
}

/* The member's part of the weights, as they are now, into the result; they are in its cache when it looks
 * whether they are finite. */
static void copy_weights(const Head& h, const Member& me) {
  bool finite = true;
  const int64_t first = slice_start(h, me.first_slice) * kBlock, inputs = h.hidden;
  const int64_t end = slice_start(h, me.last_slice) * kBlock, last = end < inputs ? end : inputs;
  ec_result& r = *h.result;
  for (int64_t start = first; start < last; start += kBlock) {
    for (int64_t k = 0; k < h.dim; k += 16) /* 16 inputs of a panel: 2 KiB, which L1 holds */
      for (int64_t unit = start; unit < last && unit < start + kBlock; ++unit)
        for (int64_t i = k; i < h.dim && i < k + 16; ++i)
          r.w1[unit * h.dim + i] = h.w1.w[panel_place(unit, i, h.x_blocks * kBlock)];
    const int64_t units = last - start < kBlock ? last - start : kBlock;
    finite = all_finite(r.w1 + start * h.dim, units * h.dim) && finite;
  }
  memcpy(r.b1 + first, h.b1.w + first, (last - first) * sizeof(float));
  for (int64_t c = 0; c < h.classes; ++c)
    for (int64_t i = first; i < last; ++i) r.w2[c * inputs + i] = h.w2.w[second_place(c, i, h.classes)];
  finite = all_finite(r.b1 + first, last - first) && finite;
  for (int64_t c = 0; c < h.classes; ++c)
    finite = all_finite(r.w2 + c * inputs + first, last - first) && finite;
  if (me.first_slice == 0) {
    memcpy(r.b2, h.b2.w, h.classes * sizeof(float));
    finite = all_finite(r.b2, h.classes) && finite;
  }
  h.bad[me.number] = !finite;
}

static bool any_bad(const Head& h) {
  bool bad = false;
  for (int member = 0; member < ec::team_size(h.team); ++member) bad = bad || h.bad[member];
  return bad;
}

/* What a head without an epoch has. */
static void clear_weights(const Head& h) {
  const ec_result& r = *h.result;
  memset(r.w1, 0, h.hidden * h.dim * sizeof(float));
  memset(r.b1, 0, h.hidden * sizeof(float));
  memset(r.w2, 0, h.classes * h.hidden * sizeof(float));
  memset(r.b2, 0, h.classes * sizeof(float));
}

}  // namespace EC_ISA

#endif
