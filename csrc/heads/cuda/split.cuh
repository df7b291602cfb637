/* Products in float32 by TF32's tensor cores: each number is the sum of two of TF32, which hold 22 of its 24
 * bits, and of their four products the three larger ones are added, the smaller ones first.
 */
#ifndef EMBEDCACHE_CUDA_SPLIT_CUH
#define EMBEDCACHE_CUDA_SPLIT_CUH

#include "mma.cuh"

namespace ec {

/* The nearest number of TF32, with nothing below. What is not finite need not stay as it is: the rest is NaN
 * then, and so is the product. */
EC_DEVICE float whole_tf32(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  bits = (bits + 0x1000u) & ~0x1FFFu;
  memcpy(&value, &bits, 4);
  return value;
}

/* A fragment as two of TF32: the product cuts off what `low` has beyond. */
template <class Fragment, int kCount>
struct SplitOf {
  Fragment high, low;

  EC_DEVICE_METHOD void set(const Fragment& of) {
    EC_UNROLL
    for (int e = 0; e < kCount; ++e) {
      high.x[e] = whole_tf32(of.x[e]);
      low.x[e] = of.x[e] - high.x[e];
    }
  }
};
using SplitA = SplitOf<FragmentA, 4>;
using SplitB = SplitOf<FragmentB, 2>;

/* c(t, m) += a(t, m) b(t) by every warp, for each m below kCount; all three give references. A product of
 * another m comes between those that add to one sum. */
template <int kCount, class Team, class C, class A, class B>
EC_DEVICE void multiply_splits(const Team& team, C c, A a, B b) {
  EC_UNROLL
  for (int part = 0; part < 3; ++part) {
    EC_UNROLL
    for (int m = 0; m < kCount; ++m)
      multiply(
          team, [&](int t) -> FragmentC& { return c(t, m); },
          [&](int t) { return part == 0 ? a(t, m).low : a(t, m).high; },
          [&](int t) { return part == 1 ? b(t).low : b(t).high; });
  }
}

/* The same for a single one. */
template <class Team, class C, class A, class B>
EC_DEVICE void multiply_split(const Team& team, C c, A a, B b) {
  multiply_splits<1>(
      team, [&](int t, int) -> FragmentC& { return c(t); }, [&](int t, int) -> const SplitA& { return a(t); },
      b);
}

}  // namespace ec
#endif
