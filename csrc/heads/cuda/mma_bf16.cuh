/* The tensor cores' product of bfloat16 numbers (mma.m16n8k16) and how its operands come out of shared memory
 * (ldmatrix).
 *
 * A warp multiplies 16 x 16 by 16 x 8. With g = lane / 4 and q = lane % 4, a lane holds pairs of neighbours,
 * the first in the lower half:
 *   FragmentA16 (row, k): (g, 2q), (g + 8, 2q), (g, 2q + 8), (g + 8, 2q + 8)
 *   FragmentB16 (k, column): (2q, g), (2q + 8, g)
 * and of the result FragmentC, as in mma.cuh: two results beside each other, in pairs, are the next product's
 * FragmentA16.
 *
 * load_matrices reads four matrices of 8 x 8, one after the other 8 lanes each giving the address of a row
 * (16 bytes, aligned): of matrix i a lane gets (g, 2q) and (g, 2q + 1), or, of its transpose, (2q, g) and (2q
 * + 1, g). Eight rows take one turn of the memory if they lie in different banks.
 */
#ifndef EMBEDCACHE_CUDA_MMA_BF16_CUH
#define EMBEDCACHE_CUDA_MMA_BF16_CUH

#include "mma.cuh"

namespace ec {

struct Pairs { /* FragmentA16, or what load_matrices gives */
  uint32_t x[4];
};
struct FragmentB16 {
  uint32_t x[2];
};

#ifdef EC_HOST_EMULATION

/* To nearest, ties to even; a NaN stays one. */
EC_DEVICE uint16_t to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
  return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

EC_DEVICE uint32_t pair(float low, float high) { return (uint32_t)to_bf16(high) << 16 | to_bf16(low); }

EC_UNSEEN inline float from_bf16(uint32_t pair, int which) {
  const uint32_t bits = which ? pair & 0xFFFF0000u : pair << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

struct ProductBf16 : HostProduct<16> {
  using All = Operands<Pairs, FragmentB16>;

  EC_UNSEEN explicit ProductBf16(const All* all) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const int g = lane / 4, q = lane % 4;
      for (int e = 0; e < 2; ++e) {
        for (int i = 0; i < 4; ++i)
          left[g + i % 2 * 8][2 * q + i / 2 * 8 + e] = from_bf16(all[lane].a.x[i], e);
        for (int i = 0; i < 2; ++i) right[2 * q + 8 * i + e][g] = from_bf16(all[lane].b.x[i], e);
      }
    }
  }
};

template <class C, class A, class B>
EC_DEVICE void multiply16(const Crew& crew, C c, A a, B b) {
  multiply_as<ProductBf16>(crew, c, a, b);
}

struct HostRow {
  uint16_t x[8];
};

/* to(t) gives a reference, from(t) the address of the row that the lane stands for. */
template <bool kTransposed, class To, class From>
EC_DEVICE void load_matrices(const Crew& crew, To to, From from) {
  crew.each_warp(
      [&](int t) {
        HostRow row;
        if ((uintptr_t)from(t) % 16) abort();
        memcpy(&row, from(t), 16);
        return row;
      },
      [&](int first, int begin, int end, const HostRow* rows) {
        for (int lane = begin; lane < end; ++lane)
          for (int i = 0; i < 4; ++i) {
            const int g = lane / 4, q = lane % 4 * 2;
            const HostRow* m = rows + 8 * i;
            to(first + lane).x[i] = kTransposed ? (uint32_t)m[q + 1].x[g] << 16 | m[q].x[g]
                                                : (uint32_t)m[g].x[q + 1] << 16 | m[g].x[q];
          }
      });
}

#else

EC_DEVICE uint32_t pair(float low, float high) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

EC_DEVICE uint16_t to_bf16(float value) { return (uint16_t)pair(value, 0.0f); }

template <class C, class A, class B>
EC_DEVICE void multiply16(const Crew&, C c, A a, B b) {
  const int t = (int)threadIdx.x;
  const Pairs own_a = a(t);
  const FragmentB16 own_b = b(t);
  FragmentC& sum = c(t);
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum.x[0]), "+f"(sum.x[1]), "+f"(sum.x[2]), "+f"(sum.x[3])
      : "r"(own_a.x[0]), "r"(own_a.x[1]), "r"(own_a.x[2]), "r"(own_a.x[3]), "r"(own_b.x[0]), "r"(own_b.x[1]));
}

template <bool kTransposed, class To, class From>
EC_DEVICE void load_matrices(const Crew&, To to, From from) {
  const int t = (int)threadIdx.x;
  const uint32_t row = (uint32_t)__cvta_generic_to_shared(from(t));
  Pairs& all = to(t);
  if (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(all.x[0]), "=r"(all.x[1]), "=r"(all.x[2]), "=r"(all.x[3])
                 : "r"(row)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(all.x[0]), "=r"(all.x[1]), "=r"(all.x[2]), "=r"(all.x[3])
                 : "r"(row)
                 : "memory");
  }
}

#endif

}  // namespace ec
#endif
