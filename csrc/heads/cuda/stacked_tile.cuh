/* The TF32 matrix product of large batches: one output tile of 128 x 128 a block, out(i, j) = sum over k of
 * a(i, k) b(j, k), by the tensor cores, with four stages of 16 k under way from device memory or L2.
 *
 * A warp has 32 rows x 64 columns of the tile: what a thread ends with are pairs of neighbours, and four such
 * pairs lie 16 columns apart, which are the units that share a call of Philox. The epilogue gets those four.
 *
 * kAcross: in memory both operands run along their outer index (the gradient), else along k (the forward
 * product). Strides in shared memory are 8 (or 24) modulo 32 words: no bank is hit twice.
 *
 * Bound: per block and 16 k it reads 16 KB from L2 for 0.5 MFLOP; with two blocks on a processor, L2 at some
 * 40 B a cycle and the tensor cores at mma.sync's rate need about the same time.
 */
#ifndef EMBEDCACHE_CUDA_STACKED_TILE_CUH
#define EMBEDCACHE_CUDA_STACKED_TILE_CUH

#include "mma.cuh"

namespace ec {

constexpr int kStackTile = 128, kStackDepth = 16, kStages = 4,
              kQuadsOfThread = kStackTile * kStackDepth / 4 / kThreads;

template <bool kAcross>
struct StackedTile {
  static constexpr int kStride = kAcross ? kStackTile + 8 : kStackDepth + 8;
  static constexpr int kLines = kAcross ? kStackDepth : kStackTile;
  alignas(16) float a[kStages][kLines * kStride], b[kStages][kLines * kStride];
};

struct StackedSums {
  FragmentC c[2][8];
};

/* Four pairs of neighbouring columns, 16 columns apart here. */
struct FourPairs {
  FragmentB pair[4];
};

/* AdamW for the pairs at `at`, + kApart, + 2 kApart, + 3 kApart, of which `left` floats are in the matrix:
 * all loads before the first store. gradient(i) is that of pair i, two floats; done(i, w) gets its new
 * weights. */
template <int kApart, class Gradient, class Done>
EC_DEVICE void update_pairs(float* at, int64_t stride, int left, const ec_adamw& adamw, Gradient gradient,
                            Done done) {
  FourPairs w, m, v;
  EC_UNROLL
  for (int i = 0; i < 4; ++i) {
    if (kApart * i >= left) continue;
    w.pair[i] = *(const FragmentB*)(at + kApart * i);
    m.pair[i] = *(const FragmentB*)(at + stride + kApart * i);
    v.pair[i] = *(const FragmentB*)(at + 2 * stride + kApart * i);
  }
  EC_UNROLL
  for (int i = 0; i < 4; ++i) {
    if (kApart * i >= left) continue;
    EC_UNROLL
    for (int e = 0; e < 2; ++e)
      fast_adamw_update(gradient(i)[e], &w.pair[i].x[e], &m.pair[i].x[e], &v.pair[i].x[e], adamw);
    *(FragmentB*)(at + kApart * i) = w.pair[i];
    *(FragmentB*)(at + stride + kApart * i) = m.pair[i];
    *(FragmentB*)(at + 2 * stride + kApart * i) = v.pair[i];
    done(i, w.pair[i]);
  }
}

/* What lies at (outer, k) and the three after it, or NULL beyond the matrix. */
struct StackedRows { /* rows that run along k */
  const float* data;
  int64_t stride;
  const uint32_t* row; /* of data, for each of the tile's; or NULL: first + outer */
  int first, outers, depth;
  EC_DEVICE_METHOD const float* at(int outer, int k) const {
    if (first + outer >= outers || k >= depth) return nullptr;
    return data + (row ? (int64_t)row[outer] : first + outer) * stride + k;
  }
};

struct StackedColumns { /* rows number k, that run along the outer index */
  const float* data;
  int64_t stride;
  const uint32_t* row; /* of data, for each k; or NULL: k */
  int first, outers, depth;
  EC_DEVICE_METHOD const float* at(int outer, int k) const {
    if (first + outer >= outers || k >= depth) return nullptr;
    return data + (row ? (int64_t)row[k] : k) * stride + first + outer;
  }
};

template <bool kAcross, class Source>
EC_DEVICE void copy_stage(int t, float* to, const Source& source, int k0) {
  EC_UNROLL
  for (int part = 0; part < kQuadsOfThread; ++part) {
    const int e = t + part * kThreads;
    constexpr int kAlong = (kAcross ? kStackTile : kStackDepth) / 4;
    const int line = e / kAlong, column = e % kAlong * 4;
    const float* from = kAcross ? source.at(column, k0 + line) : source.at(line, k0 + column);
    copy_async(t, to + line * StackedTile<kAcross>::kStride + column, from ? from : source.data,
               from != nullptr);
  }
}

template <bool kRound>
EC_DEVICE float operand(float value) {
  return kRound ? to_tf32(value) : value;
}

/* The eight k from k0 on; a's rows from row0 on. */
template <bool kAcross, bool kRound>
EC_DEVICE FragmentA load_a(const float* x, int lane, int row0, int k0) {
  constexpr int kStride = StackedTile<kAcross>::kStride;
  const int g = lane / 4, q = lane % 4;
  FragmentA a;
  EC_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int row = row0 + g + i % 2 * 8;
    a.x[i] = operand<kRound>(kAcross ? x[(k0 + q + i / 2 * 4) * kStride + row]
                                     : x[row * kStride + k0 + 2 * q + i / 2]);
  }
  return a;
}

template <bool kAcross, bool kRound>
EC_DEVICE FragmentB load_b(const float* x, int lane, int column, int k0) {
  constexpr int kStride = StackedTile<kAcross>::kStride;
  const int g = lane / 4, q = lane % 4;
  FragmentB b;
  EC_UNROLL
  for (int i = 0; i < 2; ++i)
    b.x[i] = operand<kRound>(kAcross ? x[(k0 + q + 4 * i) * kStride + column + g]
                                     : x[(column + g) * kStride + k0 + 2 * q + i]);
  return b;
}

/* epilogue(row, column, pairs): row and column of the first of the eight numbers in the tile. Operands that
 * are not in TF32 yet are rounded on the way. */
template <bool kAcross, bool kRoundA, bool kRoundB, class A, class B, class Epilogue>
EC_DEVICE void stacked_product(const Block& block, StackedTile<kAcross>& tile, int depth, const A& a,
                               const B& b, const Epilogue& epilogue) {
  struct Fragments {
    FragmentA a[2];
    FragmentB b[8];
  };
  const int steps = (depth + kStackDepth - 1) / kStackDepth;
  const auto copy = [&](int step) {
    block.each_alone([&](int t) {
      if (step < steps) {
        copy_stage<kAcross>(t, tile.a[step % kStages], a, step * kStackDepth);
        copy_stage<kAcross>(t, tile.b[step % kStages], b, step * kStackDepth);
      }
      copy_commit(t);
    });
  };
  PerThread<StackedSums> sums;
  for (int step = 0; step < kStages - 1; ++step) copy(step);
  for (int step = 0; step < steps; ++step) {
    block.each_thread(
        [&](int t) { copy_wait<kStages - 2>(t); }); /* its barrier also frees the oldest stage */
    copy(step + kStages - 1);
    EC_UNROLL
    for (int k0 = 0; k0 < kStackDepth; k0 += 8) {
      PerThread<Fragments> f;
      block.each_alone([&](int t) {
        const int warp = t / kLanes, lane = t % kLanes;
        EC_UNROLL
        for (int m = 0; m < 2; ++m)
          f[t].a[m] = load_a<kAcross, kRoundA>(tile.a[step % kStages], lane, warp / 2 * 32 + 16 * m, k0);
        EC_UNROLL
        for (int n = 0; n < 8; ++n)
          f[t].b[n] = load_b<kAcross, kRoundB>(tile.b[step % kStages], lane, warp % 2 * 64 + 8 * n, k0);
      });
      EC_UNROLL
      for (int m = 0; m < 2; ++m) {
        EC_UNROLL
        for (int n = 0; n < 8; ++n)
          multiply(
              block, [&](int t) -> FragmentC& { return sums[t].c[m][n]; }, [&](int t) { return f[t].a[m]; },
              [&](int t) { return f[t].b[n]; });
      }
    }
  }
  block.each_thread([&](int t) {
    const int warp = t / kLanes, lane = t % kLanes;
    EC_UNROLL
    for (int m = 0; m < 2; ++m) {
      EC_UNROLL
      for (int part = 0; part < 4; ++part) { /* half of the rows, half of the columns */
        const int h = part / 2, odd = part % 2;
        FourPairs pairs;
        EC_UNROLL
        for (int w = 0; w < 4; ++w) {
          const FragmentC& c = sums[t].c[m][2 * w + odd];
          pairs.pair[w] = {{c.x[2 * h], c.x[2 * h + 1]}};
        }
        epilogue(warp / 2 * 32 + 16 * m + 8 * h + lane / 4, warp % 2 * 64 + 8 * odd + lane % 4 * 2, pairs);
      }
    }
  });
}

}  // namespace ec
#endif
