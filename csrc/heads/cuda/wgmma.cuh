/* Products by four warps at once (wgmma): 64 rows by N columns, bfloat16 operands out of shared memory, sums
 * in registers, and all of it in the background (sm_90a).
 *
 * An operand lies in lines of 64 numbers (128 bytes), eight of which begin at a multiple of 1,024 bytes. A
 * line's eight groups of 8 numbers are turned by its number: group p of line i lies at place p ^ i % 8 (the
 * 128-byte swizzle). A line runs along the depth (Line::kDepth: line i is row or column i of the product) or
 * across it (Line::kAcross: line k holds 64 rows or columns at depth k, and the next 64 lie `between` lines
 * on). A product takes 16 of the depth: one further is 16 numbers further in a line, or 16 lines.
 *
 * With g = lane / 4 and q = lane % 4, the thread of warp w holds of 8 columns j: (16 w + g, 8 j + 2 q), its
 * right neighbour, and the same two 8 rows below: sums 4 j .. 4 j + 3.
 *
 * A product has been asked for, not done: its operands may not change, nor may its sums be looked at, until a
 * wait that covers the group it was committed in. Before the first one, and after any other use of the sums,
 * stands fence_products().
 *
 * On the host the product is done when it is waited for. Its sums are NaN until then, what it reads must be
 * the same as when it was asked for, and sums that were touched without a fence stop the program.
 */
#ifndef EMBEDCACHE_CUDA_WGMMA_CUH
#define EMBEDCACHE_CUDA_WGMMA_CUH

#include "mbarrier.cuh"
#include "mma_bf16.cuh"

namespace ec {

constexpr int kGroupThreads = 128;             /* of the four warps that multiply together */
constexpr int kLine = 64, kLinesOfSwizzle = 8; /* numbers of a line */
constexpr int kLineBytes = 2 * kLine;

enum class Line { kDepth, kAcross };

/* Where number i of a line lies, counted from the first of all lines. */
EC_FN int place_in_line(int line, int i) {
  return line * kLine + ((i / 8 ^ line % kLinesOfSwizzle) * 8) + i % 8;
}

/* The matrix descriptor of the PTX ISA (wgmma): 18 bits of address, 128-byte swizzle. */
EC_FN uint64_t descriptor_bits(uint64_t address, int between) {
  const uint64_t leading = (uint64_t)between * kLineBytes, stride = kLinesOfSwizzle * kLineBytes;
  return (address & 0x3FFFF) >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | (uint64_t)1 << 62;
}

#ifdef EC_HOST_EMULATION

struct Operand {
  uint64_t bits;
  const char* start; /* of which the bits have the last 18 */

  /* Number k of row or column `outer`, as the hardware finds it. */
  uint16_t at(Line line, int outer, int k) const {
    const uint64_t leading = (bits >> 16 & 0x3FFF) << 4, stride = (bits >> 32 & 0x3FFF) << 4;
    uintptr_t place = (uintptr_t)start;
    if (line == Line::kDepth) {
      place += outer / 8 * stride + (uintptr_t)outer % 8 * kLineBytes + 2 * (uintptr_t)k;
    } else {
      place += outer / kLine * leading + k / 8 * stride + (uintptr_t)k % 8 * kLineBytes +
               2 * (uintptr_t)(outer % kLine);
    }
    place ^= (place >> 7 & 7) << 4;
    return *(const uint16_t*)place;
  }
};

[[noreturn]] inline void wrong_product(const char* what) {
  fprintf(stderr, "emulated wgmma: %s\n", what);
  abort();
}

EC_DEVICE Operand operand(const uint16_t* lines, int between = 1) {
  if ((uintptr_t)lines % 16) wrong_product("an operand that is not aligned");
  return {descriptor_bits((uint64_t)(uintptr_t)lines, between), (const char*)lines};
}

/* One thread's part of a product of 64 x kColumns. */
struct HostGroupProduct {
  float* sums;
  Operand a, b;
  Line a_line, b_line;
  int columns, thread;
  bool add;
  uint64_t seen;

  /* f(row or column of the sums, depth, number): what the thread's part reads. */
  template <class F>
  void each_number(F f) const {
    const int row = thread / kLanes * 16 + thread % kLanes / 4, column = thread % 4 * 2;
    for (int half = 0; half < 2; ++half)
      for (int k = 0; k < 16; ++k) f(true, half, k, a.at(a_line, row + 8 * half, k));
    for (int pair = 0; pair < columns / 4; ++pair)
      for (int k = 0; k < 16; ++k) f(false, pair, k, b.at(b_line, pair / 2 * 8 + column + pair % 2, k));
  }

  uint64_t digest() const {
    uint64_t sum = 0;
    each_number([&](bool, int, int, uint16_t number) { sum = (sum ^ number) * UINT64_C(0x100000001B3); });
    return sum;
  }

  void run(float* out) const {
    float left[2][16], right[16];
    uint64_t sum = 0;
    each_number([&](bool is_a, int which, int k, uint16_t number) {
      sum = (sum ^ number) * UINT64_C(0x100000001B3);
      (is_a ? left[which] : right)[k] = from_bf16(number, 0);
      if (is_a || k < 15) return;
      for (int half = 0; half < 2; ++half) {
        float& to = out[which / 2 * 4 + 2 * half + which % 2];
        float all = add ? to : 0.0f;
        for (int depth = 0; depth < 16; ++depth) all += left[half][depth] * right[depth];
        to = all;
      }
    });
    if (sum != seen) wrong_product("an operand that changed before the product was waited for");
  }
};

inline std::vector<uint32_t> bits_of_sums(const float* sums, int n) {
  std::vector<uint32_t> bits((size_t)n);
  memcpy(bits.data(), sums, 4 * (size_t)n);
  return bits;
}

/* A thread's sums, and its products under way. */
struct HostGroupProducts {
  struct Sums {
    std::vector<float> own; /* what the registers will hold */
    int under_way = 0;
  };
  std::map<float*, Sums> sums;
  std::map<float*, std::vector<uint32_t>> fenced; /* as they were then, or as products left them */
  std::deque<std::vector<HostGroupProduct>> groups = {{}};

  bool is_as_fenced(float* at, int n) {
    auto found = fenced.upper_bound(at);
    if (found == fenced.begin()) return false;
    const auto& [start, bits] = *--found;
    const std::vector<uint32_t> now = bits_of_sums(at, n);
    return at + n <= start + bits.size() && std::equal(now.begin(), now.end(), bits.begin() + (at - start));
  }

  void note(float* at, int n) { /* what a product left */
    const auto found = std::prev(fenced.upper_bound(at));
    const std::vector<uint32_t> now = bits_of_sums(at, n);
    std::copy(now.begin(), now.end(), found->second.begin() + (at - found->first));
  }
};

inline HostGroupProducts& host_products(int t) {
  static thread_local std::map<int, HostGroupProducts> all;
  return all[t];
}

/* sums(t): the thread's kColumns / 2 numbers. */
template <int kColumns, class S>
EC_DEVICE void fence_products(const Crew& crew, S sums) {
  crew.each_alone([&](int t) {
    HostGroupProducts& all = host_products(t);
    const bool idle = all.groups.size() == 1 && all.groups.front().empty();
    if (idle) all.fenced[sums(t)] = bits_of_sums(sums(t), kColumns / 2);
  });
}

/* sums(t) += (or, unless `add`, =) a(t) b(t)', of 16 of the depth. */
template <int kColumns, Line kA, Line kB, class S, class A, class B>
EC_DEVICE void multiply_group(const Crew& crew, S sums, A a, B b, bool add) {
  crew.each_alone([&](int t) {
    HostGroupProducts& all = host_products(t);
    HostGroupProducts::Sums& own = all.sums[sums(t)];
    constexpr int n = kColumns / 2;
    if (own.under_way++ == 0) {
      if (!all.is_as_fenced(sums(t), n)) wrong_product("sums that were touched without a fence");
      own.own.assign(sums(t), sums(t) + n);
      memset(sums(t), 0xFF, sizeof(float) * n);
    }
    HostGroupProduct product = {sums(t), a(t), b(t), kA, kB, kColumns, t % kGroupThreads, add, 0};
    product.seen = product.digest();
    all.groups.back().push_back(product);
  });
}

EC_DEVICE void commit_products(const Crew& crew) {
  crew.each_alone([](int t) { host_products(t).groups.emplace_back(); });
}

/* Waits until no more than kPending groups are under way. */
template <int kColumns, int kPending, class S>
EC_DEVICE void wait_products(const Crew& crew, S) {
  crew.each_alone([](int t) {
    HostGroupProducts& all = host_products(t);
    for (; (int)all.groups.size() - 1 > kPending; all.groups.pop_front())
      for (const HostGroupProduct& product : all.groups.front()) {
        HostGroupProducts::Sums& own = all.sums[product.sums];
        product.run(own.own.data());
        if (--own.under_way > 0) continue;
        for (const uint32_t bits : bits_of_sums(product.sums, product.columns / 2))
          if (bits != 0xFFFFFFFFu) wrong_product("sums that were written before the product was waited for");
        memcpy(product.sums, own.own.data(), sizeof(float) * own.own.size());
        all.note(product.sums, product.columns / 2);
      }
    if (kPending == 0) all = {}; /* the next ones may lie anywhere */
  });
}

EC_DEVICE void ask_into_cache(const void*) {}

#else

/* The 128 bytes there are on their way into L2, for whom asks for them later. */
EC_DEVICE void ask_into_cache(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at) : "memory");
}

using Operand = uint64_t;

EC_DEVICE Operand operand(const uint16_t* lines, int between = 1) {
  return descriptor_bits(shared_address(lines), between);
}

/* The compiler, too, may not move a use of the sums over this. */
template <int kCount>
EC_DEVICE void hold(float* sums) {
  EC_UNROLL
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

template <int kColumns, class S>
EC_DEVICE void fence_products(const Crew&, S sums) {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

EC_DEVICE void commit_products(const Crew&) { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int kColumns, int kPending, class S>
EC_DEVICE void wait_products(const Crew&, S sums) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  if (kPending == 0) hold<kColumns / 2>(sums((int)threadIdx.x));
}

#define EC_SUMS_8(x, i)                                                                       \
  "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3]), "+f"(x[i + 4]), "+f"(x[i + 5]), \
      "+f"(x[i + 6]), "+f"(x[i + 7])
#define EC_SUMS_64(x, i)                                                                                  \
  EC_SUMS_8(x, i), EC_SUMS_8(x, i + 8), EC_SUMS_8(x, i + 16), EC_SUMS_8(x, i + 24), EC_SUMS_8(x, i + 32), \
      EC_SUMS_8(x, i + 40), EC_SUMS_8(x, i + 48), EC_SUMS_8(x, i + 56)

template <int kColumns, Line kA, Line kB, class S, class A, class B>
EC_DEVICE void multiply_group(const Crew&, S sums, A a, B b, bool add) {
#if EC_HAS_CLUSTERS
  static_assert(kColumns == 128 || kColumns == 256, "the two that are used");
  const int t = (int)threadIdx.x;
  float* x = sums(t);
  if constexpr (kColumns == 128) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
        "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
        "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
        "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
        "}, %64, %65, p, 1, 1, %67, %68;\n"
        "}"
        : EC_SUMS_64(x, 0)
        : "l"(a(t)), "l"(b(t)), "r"((int)add), "n"(kA == Line::kAcross), "n"(kB == Line::kAcross)
        : "memory");
  } else {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
        "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
        "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
        "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "
        "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, "
        "%87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, "
        "%103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, "
        "%117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
        "}, %128, %129, p, 1, 1, %131, %132;\n"
        "}"
        : EC_SUMS_64(x, 0), EC_SUMS_64(x, 64)
        : "l"(a(t)), "l"(b(t)), "r"((int)add), "n"(kA == Line::kAcross), "n"(kB == Line::kAcross)
        : "memory");
  }
#endif
}

#undef EC_SUMS_8
#undef EC_SUMS_64

#endif

}  // namespace ec
#endif
