/* What the TF32 kernels are made of: the tensor cores' product, copies to shared memory in the background,
 * and AdamW with the special-function unit's square root and quotient.
 *
 * A warp multiplies 16 x 8 by 8 x 8 (mma.m16n8k8). With g = lane / 4 and q = lane % 4, lane holds
 *   FragmentA (row, k): (g, q), (g + 8, q), (g, q + 4), (g + 8, q + 4)
 *   FragmentB (k, column): (q, g), (q + 4, g)
 *   FragmentC (row, column): (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1)
 * The order of the eight k is free as long as A and B agree on it. Here k slots q and q + 4 often stand for
 * the neighbours 2q and 2q + 1, for then FragmentC of one product, its middle two numbers swapped, is
 * FragmentA of the next: no data goes from lane to lane.
 *
 * Operands must be rounded to TF32 (11 bits of precision) by to_tf32: the hardware would cut them off. On the
 * host the product cuts them off too, so that a forgotten rounding shows in the tests; a copy is done only
 * when it is waited for, and until then its place holds NaN, so that a forgotten wait shows.
 */
#ifndef EMBEDCACHE_CUDA_MMA_CUH
#define EMBEDCACHE_CUDA_MMA_CUH

#include "block.cuh"

#ifdef EC_HOST_EMULATION
#include <string.h>

#include <deque>
#include <map>
#include <vector>
#endif

namespace ec {

struct alignas(16) Quad {
  float x[4];
};
using FragmentA = Quad;
using FragmentC = Quad;
struct alignas(8) FragmentB {
  float x[2];
};

#ifdef EC_HOST_EMULATION

/* As cvt.rna.tf32: to nearest, ties away from zero, by an addition that leaves junk in the 13 bits below,
 * which the product does not look at. */
EC_DEVICE float to_tf32(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if ((bits & 0x7F800000u) != 0x7F800000u) bits += 0x1000u;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

EC_UNSEEN inline float cut_to_tf32(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  bits &= ~0x1FFFu;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

/* What a lane brings to a product. */
template <class A, class B>
struct Operands {
  A a;
  B b;
};

/* To float32, towards 0. */
EC_UNSEEN inline float cut_to_float(double value) {
  float nearest = (float)value;
  uint32_t bits;
  __builtin_memcpy(&bits, &nearest, 4);
  bits -= __builtin_fabs((double)nearest) > __builtin_fabs(value);
  __builtin_memcpy(&nearest, &bits, 4);
  return nearest;
}

/* One of a warp's products, m16n8 of that depth. Its numbers are the lanes' own: ThreadSanitizer need not
 * look at them. What a sum has beyond float32 is cut off, as by the tensor cores: a long sum of such sums
 * drifts towards 0, which shows in the tests of what is to be float32. */
template <int kDepth>
struct HostProduct {
  float left[16][kDepth], right[kDepth][8];

  EC_UNSEEN void add(int lane, FragmentC& sum) const {
    for (int i = 0; i < 4; ++i) {
      double all = sum.x[i];
      for (int k = 0; k < kDepth; ++k)
        all += (double)left[lane / 4 + i / 2 * 8][k] * right[k][lane % 4 * 2 + i % 2];
      sum.x[i] = cut_to_float(all);
    }
  }
};

/* c(t) += a(t) b(t) by every warp; c gives a reference, a and b give values. Product: made of all lanes'. */
template <class Product, class C, class A, class B>
EC_DEVICE void multiply_as(const Crew& crew, C c, A a, B b) {
  using All = typename Product::All;
  crew.each_warp([&](int t) { return All{a(t), b(t)}; },
                 [&](int first, int begin, int end, const All* all) {
                   const Product product(all);
                   for (int lane = begin; lane < end; ++lane) product.add(lane, c(first + lane));
                 });
}

struct ProductTf32 : HostProduct<8> {
  using All = Operands<FragmentA, FragmentB>;

  EC_UNSEEN explicit ProductTf32(const All* all) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const int g = lane / 4, q = lane % 4;
      for (int i = 0; i < 4; ++i) left[g + i % 2 * 8][q + i / 2 * 4] = cut_to_tf32(all[lane].a.x[i]);
      for (int i = 0; i < 2; ++i) right[q + 4 * i][g] = cut_to_tf32(all[lane].b.x[i]);
    }
  }
};

template <class C, class A, class B>
EC_DEVICE void multiply(const Crew& crew, C c, A a, B b) {
  multiply_as<ProductTf32>(crew, c, a, b);
}

struct HostCopy {
  void* to;
  const void* from;
  bool zero;
};
using HostCopies = std::deque<std::vector<HostCopy>>; /* of a thread: groups, the last one still open */

inline HostCopies& host_copies(int t) {
  static thread_local std::map<int, HostCopies> all;
  HostCopies& copies = all[t];
  if (copies.empty()) copies.emplace_back();
  return copies;
}

EC_DEVICE void copy_async(int t, float* to, const float* from, bool inside = true) {
  memset(to, 0xFF, 16);
  host_copies(t).back().push_back({to, from, !inside});
}

EC_DEVICE void copy_commit(int t) { host_copies(t).emplace_back(); }

template <int kPending>
EC_DEVICE void copy_wait(int t) {
  HostCopies& copies = host_copies(t);
  for (; (int)copies.size() - 1 > kPending; copies.pop_front())
    for (const HostCopy& copy : copies.front())
      copy.zero ? (void)memset(copy.to, 0, 16) : (void)memcpy(copy.to, copy.from, 16);
}

EC_DEVICE float fast_root(float x) { return sqrtf(x); }
EC_DEVICE float fast_quotient(float a, float b) { return a / b; }
EC_DEVICE float fast_exp(float x) { return expf(x); }

#else

EC_DEVICE float to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return __uint_as_float(bits);
}

template <class C, class A, class B>
EC_DEVICE void multiply(const Crew&, C c, A a, B b) {
  const int t = (int)threadIdx.x;
  const FragmentA own_a = a(t);
  const FragmentB own_b = b(t);
  FragmentC& sum = c(t);
  asm volatile(/* where it stands: every lane takes part, so it may not sink below a lane's condition */
               "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, "
               "%9}, "
               "{%0, %1, %2, %3};"
               : "+f"(sum.x[0]), "+f"(sum.x[1]), "+f"(sum.x[2]), "+f"(sum.x[3])
               : "r"(__float_as_uint(own_a.x[0])), "r"(__float_as_uint(own_a.x[1])),
                 "r"(__float_as_uint(own_a.x[2])), "r"(__float_as_uint(own_a.x[3])),
                 "r"(__float_as_uint(own_b.x[0])), "r"(__float_as_uint(own_b.x[1])));
}

/* 16 bytes from device to shared memory, both aligned to 16; zeros if not `inside`. It is there for the
 * thread that asked once that has waited, and for others after the barrier that follows. */
EC_DEVICE void copy_async(int, float* to, const float* from, bool inside = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
               "l"(from), "r"(inside ? 16 : 0)
               : "memory");
}

/* Ends a group of copies, which may be empty. */
EC_DEVICE void copy_commit(int) { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Waits until no more than kPending of the thread's groups are under way. */
template <int kPending>
EC_DEVICE void copy_wait(int) {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

EC_DEVICE float fast_root(float x) {
  float root;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
}
EC_DEVICE float fast_quotient(float a, float b) {
  float inverse; /* b is a root plus something, so far from where the inverse would be subnormal */
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
  return a * inverse;
}
EC_DEVICE float fast_exp(float x) { return __expf(x); }

#endif

/* ec_adamw_update to some 2^-22 in the step: far below what TF32 does to the gradient. Subnormal numbers
 * count as 0 in root and quotient: keeping them costs as much as all the rest. */
EC_DEVICE void fast_adamw_update(float gradient, float* w, float* m, float* v, const ec_adamw& a) {
  *m = fmaf(a.m_rate, gradient - *m, *m);
  *v = fmaf(a.v_rate * gradient, gradient, fmaf(-a.v_rate, *v, *v));
  *w -= fmaf(a.decay, *w, fast_quotient(a.rate * *m, fast_root(*v) + a.eps));
}

}  // namespace ec
#endif
