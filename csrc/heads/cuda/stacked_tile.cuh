/* The matrix product of large batches, in TF32 or float32: one output tile of 128 x 128 a block, out(i, j) =
 * sum over k of a(i, k) b(j, k), by the tensor cores, with four stages of 16 k under way from device memory
 * or L2.
 *
 * A warp has 32 rows x 64 columns of the tile: what a thread ends with are pairs of neighbours, and four such
 * pairs lie 16 columns apart, which are the units that share a call of Philox. The epilogue gets those four.
 *
 * kAcross: in memory both operands run along their outer index (the gradient), else along k (the forward
 * product). Strides in shared memory are 8 (or 24) modulo 32 words: no bank is hit twice.
 *
 * Bound: per block and 16 k it reads 16 KB from L2 for 0.5 MFLOP; with two blocks on a processor, L2 at some
 * 40 B a cycle and the tensor cores at mma.sync's rate need about the same time in TF32.
 */
#ifndef EMBEDCACHE_CUDA_STACKED_TILE_CUH
#define EMBEDCACHE_CUDA_STACKED_TILE_CUH

#include "split.cuh"

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

/* Where the thread's part of a stage lies in a tile: four neighbours of a line, each part a few lines on. */
template <bool kAcross>
struct StagePlace {
  static constexpr int kQuads = (kAcross ? kStackTile : kStackDepth) / 4, kLinesApart = kThreads / kQuads;
  static EC_DEVICE_METHOD int line(int t, int part) { return t / kQuads + part * kLinesApart; }
  static EC_DEVICE_METHOD int column(int t) { return t % kQuads * 4; }
};

/* The pointer as one number: the compiler would keep what it is made of, in more registers. */
EC_DEVICE const float* as_one(const float* at) {
#ifdef __CUDA_ARCH__
  asm("" : "+l"(at));
#endif
  return at;
}

/* The operands. What a tile has beyond the matrix is copied from its last row or column: it counts for sums
 * that nobody looks at. Beyond the depth are zeros. */
template <class Row>
struct StackedRows { /* rows that run along k; row(line) is where the tile's row number `line` begins */
  using Place = StagePlace<false>;
  int depth;
  Row row;
  struct Cursor {
    const float* from[kQuadsOfThread];
    int left; /* of the depth */
  };
  EC_DEVICE_METHOD Cursor cursor(int t) const {
    Cursor at;
    EC_UNROLL
    for (int part = 0; part < kQuadsOfThread; ++part)
      at.from[part] = as_one(row(Place::line(t, part)) + Place::column(t));
    at.left = depth - Place::column(t);
    return at;
  }
  EC_DEVICE_METHOD bool inside(const Cursor& cursor, int, int k0) const { return k0 < cursor.left; }
  EC_DEVICE_METHOD const float* at(int, const Cursor& cursor, int part, int k0) const {
    return cursor.from[part] + k0;
  }
};

template <class Row>
struct StackedColumns { /* rows number row(k) of data, that run along the outer index */
  using Place = StagePlace<true>;
  const float* data;
  uint32_t stride;
  int depth, width;
  Row row;
  struct Cursor {
    const float* from;
    int left; /* of the depth */
  };
  EC_DEVICE_METHOD Cursor cursor(int t) const {
    const int column = Place::column(t) < width ? Place::column(t) : width - 4;
    return {as_one(data + column), depth - Place::line(t, 0)};
  }
  EC_DEVICE_METHOD bool inside(const Cursor& cursor, int part, int k0) const {
    return k0 + part * Place::kLinesApart < cursor.left;
  }
  EC_DEVICE_METHOD const float* at(int t, const Cursor& cursor, int part, int k0) const {
    const uint32_t number = row(inside(cursor, part, k0) ? (uint32_t)(k0 + Place::line(t, part)) : 0);
    return cursor.from + (uint64_t)number * stride;
  }
};

template <class Row>
EC_DEVICE StackedRows<Row> stacked_rows(int depth, Row row) {
  return {depth, row};
}
template <class Row>
EC_DEVICE StackedColumns<Row> stacked_columns(const float* data, int64_t stride, int depth, int width,
                                              Row row) {
  return {data, (uint32_t)stride, depth, width, row};
}

template <bool kAcross, class Source>
EC_DEVICE void copy_stage(int t, float* to, const Source& source, const typename Source::Cursor& cursor,
                          int k0) {
  using Place = StagePlace<kAcross>;
  EC_UNROLL
  for (int part = 0; part < kQuadsOfThread; ++part)
    copy_async(t, to + Place::line(t, part) * StackedTile<kAcross>::kStride + Place::column(t),
               source.at(t, cursor, part, k0), source.inside(cursor, part, k0));
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

/* Of the tile, what a warp has: where its rows and its columns begin. */
EC_DEVICE int first_row(int t) { return t / kLanes / 2 * 32; }
EC_DEVICE int first_column(int t) { return t / kLanes % 2 * 64; }

/* Products in TF32: operands that are not yet are rounded on the way. */
template <bool kRoundA, bool kRoundB>
struct RoundedOperands {
  /* sums += the product of a stage. */
  template <bool kAcross>
  static EC_DEVICE_METHOD void add_stage(const Block& block, PerThread<StackedSums>& sums, const float* a,
                                         const float* b) {
    EC_UNROLL
    for (int k0 = 0; k0 < kStackDepth; k0 += 8) add<kAcross>(block, sums, a, b, k0);
  }

 private:
  struct Fragments {
    FragmentA a[2];
    FragmentB b[8];
  };

  template <bool kAcross>
  static EC_DEVICE_METHOD void add(const Block& block, PerThread<StackedSums>& sums, const float* a,
                                   const float* b, int k0) {
    PerThread<Fragments> f;
    block.each_alone([&](int t) {
      const int lane = t % kLanes;
      EC_UNROLL
      for (int m = 0; m < 2; ++m) f[t].a[m] = load_a<kAcross, kRoundA>(a, lane, first_row(t) + 16 * m, k0);
      EC_UNROLL
      for (int n = 0; n < 8; ++n) f[t].b[n] = load_b<kAcross, kRoundB>(b, lane, first_column(t) + 8 * n, k0);
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
};

/* Products in float32 (split.cuh). b is split eight columns at a time and eight k are a loop: more does not
 * fit the registers. The tensor cores cut off the last bits of a sum, always towards 0: so they add up eight
 * k, and the CUDA cores, which round, the rest. */
struct SplitOperands {
  template <bool kAcross>
  static EC_DEVICE_METHOD void add_stage(const Block& block, PerThread<StackedSums>& sums, const float* a,
                                         const float* b) {
    EC_ROLLED
    for (int k0 = 0; k0 < kStackDepth; k0 += 8) add<kAcross>(block, sums, a, b, k0);
  }

 private:
  struct Fragments {
    SplitA a[2];
    SplitB b;
    FragmentC piece[2];
  };

  template <bool kAcross>
  static EC_DEVICE_METHOD void add(const Block& block, PerThread<StackedSums>& sums, const float* a,
                                   const float* b, int k0) {
    PerThread<Fragments> f;
    block.each_alone([&](int t) {
      EC_UNROLL
      for (int m = 0; m < 2; ++m)
        f[t].a[m].set(load_a<kAcross, false>(a, t % kLanes, first_row(t) + 16 * m, k0));
    });
    EC_UNROLL
    for (int n = 0; n < 8; ++n) {
      block.each_alone([&](int t) {
        f[t].b.set(load_b<kAcross, false>(b, t % kLanes, first_column(t) + 8 * n, k0));
        f[t].piece[0] = f[t].piece[1] = {};
      });
      multiply_splits<2>(
          block, [&](int t, int m) -> FragmentC& { return f[t].piece[m]; },
          [&](int t, int m) -> const SplitA& { return f[t].a[m]; },
          [&](int t) -> const SplitB& { return f[t].b; });
      block.each_alone([&](int t) {
        EC_UNROLL
        for (int e = 0; e < 8; ++e) sums[t].c[e / 4][n].x[e % 4] += f[t].piece[e / 4].x[e % 4];
      });
    }
  }
};

template <bool kAcross, class Operands, class A, class B>
EC_DEVICE void stacked_product(const Block& block, StackedTile<kAcross>& tile, int depth, const A& a,
                               const B& b, PerThread<StackedSums>& sums) {
  const int steps = (depth + kStackDepth - 1) / kStackDepth;
  struct Cursors {
    typename A::Cursor a;
    typename B::Cursor b;
  };
  PerThread<Cursors> at;
  block.each_alone([&](int t) { at[t] = {a.cursor(t), b.cursor(t)}; });
  const auto copy = [&](int step) {
    block.each_alone([&](int t) {
      if (step < steps) {
        copy_stage<kAcross>(t, tile.a[step % kStages], a, at[t].a, step * kStackDepth);
        copy_stage<kAcross>(t, tile.b[step % kStages], b, at[t].b, step * kStackDepth);
      }
      copy_commit(t);
    });
  };
  for (int step = 0; step < kStages - 1; ++step) copy(step);
  for (int step = 0; step < steps; ++step) {
    block.each_thread(
        [&](int t) { copy_wait<kStages - 2>(t); }); /* its barrier also frees the oldest stage */
    copy(step + kStages - 1);
    Operands::template add_stage<kAcross>(block, sums, tile.a[step % kStages], tile.b[step % kStages]);
  }
}

/* f(row, column, pairs): row and column of the first of the eight numbers in the tile. What f needs is best
 * looked up after the product: registers are short in it. */
template <class F>
EC_DEVICE void each_sum(const Block& block, PerThread<StackedSums>& sums, F f) {
  block.each_thread([&](int t) {
    const int lane = t % kLanes;
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
        f(first_row(t) + 16 * m + 8 * h + lane / 4, first_column(t) + 8 * odd + lane % 4 * 2, pairs);
      }
    }
  });
}

}  // namespace ec
#endif
