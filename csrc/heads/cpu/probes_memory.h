/* The memory of a group of probes in one piece, and the best weights' way back to row-major.
 *
 * Included by probes.h. The memory comes zeroed, and so do the weights. The state is 12 bytes a weight;
 * beside it lie two or three batches of x and the logits.
 */
#ifndef EMBEDCACHE_CPU_PROBES_MEMORY_H
#define EMBEDCACHE_CPU_PROBES_MEMORY_H

namespace EC_ISA {

static ProbeMember lay_out_probe_member(const Probes& h, Arena& arena) {
  ProbeMember me;
  me.number = 0;
  me.first = me.last = 0;
  me.course = arena.take<Course>(h.n);
  me.sum = arena.take<double>(h.n);
  me.row = arena.take<int64_t>(h.stride);
  me.y = arena.take<int64_t>(h.stride);
  me.row_logits = arena.take<float>(h.classes);
  me.e = arena.take<vd>(h.classes);
  me.part = arena.take<Validation>(h.n);
  return me;
}

static void lay_out_probes(Probes& h, Arena& arena) {
  const int64_t eights = (h.outputs + kPanel - 1) / kPanel;
  arena.take<Probes>(1);
  lay_out_batches(h, arena);
  h.specs = arena.take<ec_head>(h.n);
  h.results = arena.take<ec_result*>(h.n);
  h.train_loss = arena.take<Loss>(h.n);
  h.w = take_parameter(arena, eights * h.x_blocks * kStep);
  h.b = take_parameter(arena, h.outputs);
  h.adamw = arena.take<ec_adamw>(h.outputs);
  h.logits = arena.take<float>(h.outputs * h.stride);
  h.loss = arena.take<double>(h.n * h.stride);
  h.scores = arena.take<Scores>(h.n);
  h.counts = arena.take<int64_t>(h.n * 3 * h.classes);
  h.bad = arena.take<int32_t>(h.n * ec::team_size(h.team));
  const int64_t before = arena.used;
  h.member_memory = arena.memory ? arena.memory + before : nullptr;
  lay_out_probe_member(h, arena);
  h.member_bytes = arena.used - before;
  arena.used = before + h.member_bytes * ec::team_size(h.team);
}

/* A probe's weights lie in fresh memory, which is zero. */
static void start_probe(const Probes& h, const ec_start& start, int64_t p) {
  const int64_t dim = h.task.train.x.dim;
  for (int64_t c = 0; c < h.classes; ++c) {
    const int64_t output = p * h.classes + c;
    if (start.b2) h.b.w[output] = start.b2[c];
    float* w = weights_of(h, output).w;
    for (int64_t k = 0; start.w2 && k < dim; k += kBlock, w += kStep)
      memcpy(w, start.w2 + c * dim + k, (dim - k < kBlock ? dim - k : kBlock) * sizeof(float));
  }
}

static Probes* probes_create(const ec_task& task, const ec_head* const* specs, ec_result* const* results,
                             int64_t n, const ec_options& options, Team* team) {
  Probes h = {};
  make_batches(h, task, options, team, specs[0]->seed, false);
  h.train = train_probes;
  h.n = n;
  h.classes = task.outputs;
  h.outputs = n * h.classes;
  h.capacity = larger(h.batch, task.val.n > 0 ? kValRows : 0) | 1;
  h.stride = (larger(h.batch, task.val.n > 0 ? kValRows : 0) + kLossRows - 1) / kLossRows * kLossRows;
  h.val_loss = make_loss(task, task.class_weight, 0.0, {EC_LOSS_NLL, 0.0});
  Arena count = {nullptr};
  lay_out_probes(h, count);
  Arena arena = {static_cast<char*>(ec::memory_take(count.used))};
  if (!arena.memory) return nullptr;
  h.memory = arena.memory;
  lay_out_probes(h, arena);
  for (int64_t p = 0; p < n; ++p) {
    h.specs[p] = *specs[p];
    h.results[p] = results[p];
    h.train_loss[p] = make_loss(task, specs[p]->class_weight, specs[p]->label_smoothing,
                                {specs[p]->loss, specs[p]->loss_setting});
    start_probe(h, specs[p]->start, p);
  }
  Probes* made = reinterpret_cast<Probes*>(arena.memory);
  *made = h;
  return made;
}

static ProbeMember probe_member_of(const Probes& h, int number) {
  Arena arena = {h.member_memory + number * h.member_bytes};
  ProbeMember me = lay_out_probe_member(h, arena);
  const int64_t eights = (h.outputs + kPanel - 1) / kPanel;
  const int size = ec::team_size(h.team);
  const int64_t last = share(eights, number + 1, size) * kPanel;
  me.number = number;
  me.first = share(eights, number, size) * kPanel;
  me.last = last < h.outputs ? last : h.outputs;
  for (int64_t p = 0; p < h.n; ++p) me.course[p] = new_course();
  return me;
}

/* The member's part of a probe's weights, as they are now, into its result, and whether they are finite. */
static void copy_probe(const Probes& h, const ProbeMember& me, int64_t p) {
  const ec_result& r = *h.results[p];
  const int64_t dim = h.task.train.x.dim, first = larger(me.first, p * h.classes);
  bool finite = true;
  for (int64_t o = first; o < me.last && o < (p + 1) * h.classes; ++o) {
    const int64_t c = o % h.classes;
    const float* w = weights_of(h, o).w;
    for (int64_t k = 0; k < dim; k += kBlock, w += kStep)
      memcpy(r.w2 + c * dim + k, w, (dim - k < kBlock ? dim - k : kBlock) * sizeof(float));
    r.b2[c] = h.b.w[o];
    finite = all_finite(r.w2 + c * dim, dim) && all_finite(r.b2 + c, 1) && finite;
  }
  h.bad[me.number * h.n + p] = !finite;
}

static bool any_bad(const Probes& h, int64_t p) {
  bool bad = false;
  for (int member = 0; member < ec::team_size(h.team); ++member) bad = bad || h.bad[member * h.n + p];
  return bad;
}

/* What a probe without an epoch has. */
static void clear_probe(const Probes& h, int64_t p) {
  memset(h.results[p]->w2, 0, h.classes * h.task.train.x.dim * sizeof(float));
  memset(h.results[p]->b2, 0, h.classes * sizeof(float));
}

}  // namespace EC_ISA

#endif
