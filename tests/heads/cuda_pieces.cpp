/* Pieces of the CUDA engine that no bank small enough for a test reaches, compiled for the host: prints what
 * is wrong. */
#include <cstdio>

#include "../../csrc/heads/cuda/stacked.cuh"

using namespace ec;

static int wrong = 0;

static void expect(bool right, const char* what) {
  if (right) return;
  std::printf("%s\n", what);
  ++wrong;
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
  PerThread<FragmentC> sums;
  const Crew crew(kThreads, false);
  const float a = to_tf32(from_bits(0x3F800FFF)), b = to_tf32(from_bits(0x40000123)); /* 1 and 2 in TF32 */
  multiply(
      crew, [&](int t) -> FragmentC& { return sums[t]; }, [&](int) { return FragmentA{{a, a, a, a}}; },
      [&](int) { return FragmentB{{b, b}}; });
  for (int t = 0; t < kThreads; ++t)
    for (const float sum : sums[t].x) expect(sum == 16.0f, "a product looks at the junk below TF32");
}

int main() {
  finished_heads_have_no_rows();
  rounding_leaves_junk_that_products_ignore();
  return wrong > 0;
}
