/* Pieces of the CUDA engine that no bank small enough for a test reaches, compiled for the host: prints what
 * is wrong. */
#include <cstdio>

#include "../../csrc/heads/cuda/cluster.cuh"
#include "../../csrc/heads/cuda/stacked.cuh"
#include "../../csrc/heads/cuda/wgmma.cuh"

using namespace ec;

static int wrong = 0;

static void expect(bool right, const char* what) {
  if (right) return;
  std::printf("%s\n", what);
  ++wrong;
}

/* So many threads, whose phases this thread runs: for what comes after, too. */
static Crew crew_of(int threads) {
  host_threads().count = threads;
  return Crew();
}

static float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

/* A head that ended 2^31 rows and more ago, beside one that has so many. */
static void finished_heads_have_no_rows() {
  Launch launch = {};
  launch.batch_size = 32;
  launch.scratch_shape.rows = 1024;
  View view = {};
  view.n = 100;
  for (const uint32_t step : {3u, 4u, (1u << 26) + 3, (1u << 26) + 4, 1u << 27}) {
    launch.step_begin = step;
    const int rows = stretch_of(launch, view, true).rows;
    expect(rows == (step == 3 ? 4 : 0), "a finished head has rows");
  }
}

/* cvt.rna.tf32 leaves the 13 bits below what a product looks at as they come out of the addition. */
static void rounding_leaves_junk_that_products_ignore() {
  expect(bits_of(to_tf32(from_bits(0x3F800FFF))) == 0x3F801FFF,
         "the junk below TF32 is not what a GPU leaves");
  expect(bits_of(to_tf32(from_bits(0x3F801000))) == 0x3F802000, "a tie is not rounded away from zero");
  expect(bits_of(to_tf32(from_bits(0x7F801000))) == 0x7F801000, "a NaN became a number");
  const Crew crew = crew_of(kThreads);
  PerThread<FragmentC> sums;
  const float a = to_tf32(from_bits(0x3F800FFF)), b = to_tf32(from_bits(0x40000123)); /* 1 and 2 in TF32 */
  multiply(
      crew, [&](int t) -> FragmentC& { return sums[t]; }, [&](int) { return FragmentA{{a, a, a, a}}; },
      [&](int) { return FragmentB{{b, b}}; });
  for (int t = 0; t < kThreads; ++t)
    for (const float sum : sums[t].x) expect(sum == 16.0f, "a product looks at the junk below TF32");
}

/* A number that bfloat16 has, different for each i below 256. */
static float number(int i) { return (float)(i - 100) / 16.0f; }

/* mma.m16n8k16 with the elements a0 .. a7, b0 .. b3 and c0 .. c3 where the PTX manual has them. */
static void a_product_of_pairs_is_one_of_matrices() {
  float a[16][16], b[16][8];
  for (int i = 0; i < 256; ++i) a[i / 16][i % 16] = number(i * 37 % 256);
  for (int i = 0; i < 128; ++i) b[i / 8][i % 8] = number(i * 29 % 256);
  const Crew warp = crew_of(kLanes);
  PerThread<FragmentC> sums;
  multiply16(
      warp, [&](int t) -> FragmentC& { return sums[t]; },
      [&](int t) {
        float x[8];
        for (int i = 0; i < 8; ++i) {
          const int row = i < 2 || (i >= 4 && i < 6) ? t >> 2 : (t >> 2) + 8;
          x[i] = a[row][(t % 4) * 2 + (i & 1) + (i >= 4 ? 8 : 0)];
        }
        return Pairs{{pair(x[0], x[1]), pair(x[2], x[3]), pair(x[4], x[5]), pair(x[6], x[7])}};
      },
      [&](int t) {
        float x[4];
        for (int i = 0; i < 4; ++i) x[i] = b[(t % 4) * 2 + (i & 1) + (i >= 2 ? 8 : 0)][t >> 2];
        return FragmentB16{{pair(x[0], x[1]), pair(x[2], x[3])}};
      });
  for (int t = 0; t < kLanes; ++t)
    for (int i = 0; i < 4; ++i) {
      const int row = (t >> 2) + (i < 2 ? 0 : 8), column = (t % 4) * 2 + (i & 1);
      float sum = 0; /* exact: few bits */
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      expect(sums[t].x[i] == sum, "mma.m16n8k16 is not the product of its matrices");
    }
}

/* ldmatrix: of matrix i thread t gets the pair t % 4 of row t / 4; with .trans of column t / 4. */
static void matrices_come_as_pairs() {
  alignas(16) uint16_t memory[32][8];
  for (int i = 0; i < 256; ++i) memory[i / 8][i % 8] = (uint16_t)(1000 + i);
  const Crew warp = crew_of(kLanes);
  PerThread<Pairs> straight, turned;
  const auto row = [&](int t) { return (const uint16_t*)memory[t]; };
  load_matrices<false>(warp, [&](int t) -> Pairs& { return straight[t]; }, row);
  load_matrices<true>(warp, [&](int t) -> Pairs& { return turned[t]; }, row);
  for (int t = 0; t < kLanes; ++t)
    for (int i = 0; i < 4; ++i)
      for (int e = 0; e < 2; ++e) {
        const uint32_t one = 1000 + 64 * i, j = (uint32_t)(t % 4 * 2 + e), g = (uint32_t)(t / 4);
        expect((straight[t].x[i] >> 16 * e & 0xFFFF) == one + 8 * g + j, "ldmatrix has other numbers");
        expect((turned[t].x[i] >> 16 * e & 0xFFFF) == one + 8 * j + g, "ldmatrix.trans has other numbers");
      }
}

struct alignas(1024) Matrices {
  uint16_t a[2 * 64 * kLine], b[256 * kLine]; /* one line beside the other, or two or four blocks of 64 */
};

static float a_at(int row, int k) { return number((row * 37 + k * 11) % 256); }
static float b_at(int column, int k) { return number((column * 29 + k * 53) % 256); }

/* Depth 16 to 31 of 64, or of as many lines as there are; blocks of 64 rows or columns 64 lines apart.
 * `unturned`: the mistake of a copy that forgets to turn a line's groups. */
static void lay_out(Matrices& m, Line line, int columns, bool unturned) {
  const auto place = [&](int outer, int k) {
    const int of = line == Line::kDepth ? outer : outer / kLine * 64 + k;
    const int i = line == Line::kDepth ? k : outer % kLine;
    return unturned ? of * kLine + i : place_in_line(of, i);
  };
  for (int k = 0; k < 64; ++k) {
    for (int row = 0; row < 64; ++row) m.a[place(row, k)] = to_bf16(a_at(row, k));
    for (int column = 0; column < columns; ++column) m.b[place(column, k)] = to_bf16(b_at(column, k));
  }
}

/* How many of the sums of a group of four warps are not what the PTX manual's figure of D says. */
template <int kColumns, Line kLineOf>
static int wrong_sums(bool unturned, bool add) {
  static Matrices m;
  lay_out(m, kLineOf, kColumns, unturned);
  const Crew crew = crew_of(kGroupThreads);
  struct Sums {
    float x[kColumns / 2];
  };
  PerThread<Sums> all;
  const auto sums = [&](int t) { return all[t].x; };
  crew.each_alone([&](int t) {
    for (float& x : all[t].x) x = 5.0f;
  });
  const int further = kLineOf == Line::kDepth ? 16 : 16 * kLine;
  fence_products<kColumns>(crew, sums);
  for (int k = 1; k < 3; ++k)
    multiply_group<kColumns, kLineOf, kLineOf>(
        crew, sums, [&](int) { return operand(m.a + k * further, 64); },
        [&](int) { return operand(m.b + k * further, 64); }, add || k > 1);
  commit_products(crew);
  wait_products<kColumns, 1>(crew, sums);
  for (int t = 0; t < kGroupThreads; ++t)
    expect(all[t].x[0] != all[t].x[0], "a product that was not waited for does not hide its sums");
  wait_products<kColumns, 0>(crew, sums);
  int found = 0;
  for (int t = 0; t < kGroupThreads; ++t)
    for (int i = 0; i < kColumns / 2; ++i) {
      const int row = t / 32 * 16 + t % 32 / 4 + (i & 2 ? 8 : 0), column = i / 4 * 8 + t % 4 * 2 + (i & 1);
      float sum = add ? 5.0f : 0.0f; /* exact: few bits */
      for (int k = 16; k < 48; ++k) sum += a_at(row, k) * b_at(column, k);
      found += all[t].x[i] != sum;
    }
  return found;
}

static void products_of_groups_are_those_of_matrices() {
  const char* what = "wgmma is not the product of its matrices";
  expect(wrong_sums<256, Line::kDepth>(false, false) == 0 && wrong_sums<256, Line::kDepth>(false, true) == 0,
         what);
  expect(
      wrong_sums<128, Line::kAcross>(false, true) == 0 && wrong_sums<128, Line::kAcross>(false, false) == 0,
      what);
  expect(
      wrong_sums<256, Line::kDepth>(true, false) > 4096 && wrong_sums<128, Line::kAcross>(true, false) > 4096,
      "groups that were not turned are not noticed");
  expect(
      descriptor_bits(0x2F440, 64) == (UINT64_C(1) << 62 | UINT64_C(64) << 32 | UINT64_C(512) << 16 | 0x2F44),
      "the descriptor is not that of the PTX manual");
}

/* What must stop the program. */
static void misuse_products(const char* how) {
  static Matrices m;
  lay_out(m, Line::kDepth, 128, false);
  const Crew crew = crew_of(kGroupThreads);
  struct Sums {
    float x[64];
  };
  PerThread<Sums> all;
  const auto sums = [&](int t) { return all[t].x; };
  if (strcmp(how, "fence")) fence_products<128>(crew, sums);
  if (!strcmp(how, "touch")) all[7].x[3] = 1.0f;
  multiply_group<128, Line::kDepth, Line::kDepth>(
      crew, sums, [&](int) { return operand(m.a); }, [&](int) { return operand(m.b); }, true);
  commit_products(crew);
  if (!strcmp(how, "change")) m.b[place_in_line(9, 5)] ^= 1;
  if (!strcmp(how, "write")) all[7].x[3] = 1.0f;
  wait_products<128, 0>(crew, sums);
}

static void bfloat16_is_rounded_to_even() {
  expect(to_bf16(from_bits(0x3F808000)) == 0x3F80 && to_bf16(from_bits(0x3F818000)) == 0x3F82, "a tie");
  expect(to_bf16(from_bits(0x3F808001)) == 0x3F81 && to_bf16(from_bits(0xBF807FFF)) == 0xBF80, "no tie");
  expect(to_bf16(from_bits(0x7F7FFFFF)) == 0x7F80 && to_bf16(INFINITY) == 0x7F80, "an overflow");
  expect((to_bf16(from_bits(0x7F800001)) & 0x7FFF) > 0x7F80, "a NaN became a number");
}

/* Two arrivals and eight bytes, some of which land before they are announced. */
static void a_barrier_counts_arrivals_and_bytes() {
  Mbarrier barrier;
  float to[3] = {1.0f, 1.0f, 1.0f};
  init(barrier, 2);
  wait(barrier, 1); /* of the phase before the first: over */
  push(&to[0], 5.0f, &barrier);
  expect(to[0] != to[0], "a store under way does not hide what it replaces");
  host_pushes()[0].land();
  host_pushes().clear();
  arrive(&barrier);
  expect(Counts::of(barrier.state).parity == 0, "a phase ended without an arrival");
  arrive_expect(barrier, 8);
  expect(Counts::of(barrier.state).parity == 0, "a phase ended without a byte");
  push(&to[1], 6.0f, &barrier);
  wait(barrier, 0);
  expect(to[0] == 5.0f && to[1] == 6.0f && to[2] == 1.0f, "what has landed is not there");
  arrive(&barrier);
  arrive(&barrier);
  wait(barrier, 1);
  expect(Counts::of(barrier.state).missing == 2, "a phase does not begin with all arrivals missing");
}

/* What must stop the program. */
static void misuse(const char* how) {
  Mbarrier barrier;
  init(barrier, 2);
  arrive(&barrier);
  if (!strcmp(how, "wait")) wait(barrier, 0);
  if (!strcmp(how, "announce")) {
    arrive_expect(barrier, 4);
    wait(barrier, 0);
  }
  if (!strcmp(how, "arrive")) {
    arrive_expect(barrier, 4); /* the phase waits for bytes alone */
    arrive(&barrier);
  }
  if (!strcmp(how, "bytes")) arrive_expect(barrier, 1 << 20);
}

int main(int, char** arguments) {
  if (arguments[1]) {
    arguments[2] ? misuse_products(arguments[2]) : misuse(arguments[1]);
    return 0;
  }
  a_product_of_pairs_is_one_of_matrices();
  matrices_come_as_pairs();
  products_of_groups_are_those_of_matrices();
  bfloat16_is_rounded_to_even();
  a_barrier_counts_arrivals_and_bytes();
  finished_heads_have_no_rows();
  rounding_leaves_junk_that_products_ignore();
  return wrong > 0;
}
