/* Quads of int8: what the encoder's products read in the int8 compute mode.
 *
 * A word holds four neighbours in the direction that a product sums over, the first one lowest. One operand
 * is signed (rows, -127 to 127), the other (weights) has kLift = 128 added to it and is read as unsigned, as
 * vpdpbusd wants it: four multiply-adds a lane. ARM's sdot takes them as they are: kLift = 0. Sums are int32
 * and exact (up to 65,536 products: 127 * 255 of each), so that every way to compute them gives the same
 * bits.
 */
#ifndef EMBEDCACHE_SIMD_QUADS_H
#define EMBEDCACHE_SIMD_QUADS_H

#include "simd.h"

namespace EC_ISA {

typedef uint32_t Quad;
typedef int32_t vi_unaligned __attribute__((vector_size(4 * EC_LANES), aligned(4)));

static inline vi load_whole(const int32_t* p) { return *reinterpret_cast<const vi_unaligned*>(p); }

constexpr int kQuad = 4;
#if defined(__ARM_FEATURE_DOTPROD)
constexpr int32_t kLift = 0;
#else
constexpr int32_t kLift = 128;
#endif
constexpr Quad kLifted = (Quad)kLift * 0x01010101u; /* four zeros among the weights */

/* Each instruction set defines kLift and the same seven:
 *   quad_dot      sum + the four products of each lane, of lifted weights and signed rows
 *   nearest       whole numbers, ties to even
 *   store_quads   kLanes int32 as int8, what is outside of it as its end
 *   any_outside   whether a lane is above 127 or below -128
 *   append_outside   those lanes to numbers, with `first` plus their places to places; how many. Writes
 *                 kLanes of each, whatever it finds
 *   lane_most     the largest lane
 *   lane_total    the sum of all
 * and how many rows of a tile fit into its registers beside what quad_dot needs. */
#if EC_LANES == 16
#if defined(__AVX512VNNI__)
constexpr int kQuadRows = 12;
static inline vi quad_dot(vi sum, vu weights, vi row) {
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, (__m512i)row);
}
#else
constexpr int kQuadRows = 8;
static inline vi quad_dot(vi sum, vu weights, vi row) {
  const __m512i w = (__m512i)weights, r = (__m512i)row, low = _mm512_set1_epi16(0xFF);
  const __m512i even =
      _mm512_madd_epi16(_mm512_and_si512(w, low), _mm512_srai_epi16(_mm512_slli_epi16(r, 8), 8));
  const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(w, 8), _mm512_srai_epi16(r, 8));
  return (vi)_mm512_add_epi32((__m512i)sum, _mm512_add_epi32(even, odd));
}
#endif
static inline vi nearest(vf x) { return (vi)_mm512_cvtps_epi32(x); }
static inline __mmask16 lanes_outside(vi x) {
  return _mm512_cmpgt_epu32_mask((__m512i)(x + 128), _mm512_set1_epi32(255));
}
static inline bool any_outside(vi x) { return lanes_outside(x); }
static inline int append_outside(vi x, int32_t first, int32_t* numbers, int32_t* places) {
  const __mmask16 outside = lanes_outside(x);
  const __m512i at = _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                      _mm512_set1_epi32(first));
  _mm512_storeu_si512(numbers, _mm512_maskz_compress_epi32(outside, (__m512i)x));
  _mm512_storeu_si512(places, _mm512_maskz_compress_epi32(outside, at));
  return __builtin_popcount(outside);
}
static inline int32_t lane_most(vi x) { return _mm512_reduce_max_epi32((__m512i)x); }
static inline int32_t lane_total(vu x) { return _mm512_reduce_add_epi32((__m512i)x); }
static inline void store_quads(Quad* out, vi x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtsepi32_epi8((__m512i)x));
}
#elif EC_LANES == 8
#if defined(__AVXVNNI__)
constexpr int kQuadRows = 6;
static inline vi quad_dot(vi sum, vu weights, vi row) {
  return (vi)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights, (__m256i)row);
}
#elif defined(__AVX512VNNI__) /* the same instruction in another encoding, for tests */
constexpr int kQuadRows = 6;
static inline vi quad_dot(vi sum, vu weights, vi row) {
  return (vi)_mm256_dpbusd_epi32((__m256i)sum, (__m256i)weights, (__m256i)row);
}
#else
constexpr int kQuadRows = 4;
static inline vi quad_dot(vi sum, vu weights, vi row) {
  const __m256i w = (__m256i)weights, r = (__m256i)row, low = _mm256_set1_epi16(0xFF);
  const __m256i even =
      _mm256_madd_epi16(_mm256_and_si256(w, low), _mm256_srai_epi16(_mm256_slli_epi16(r, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(r, 8));
  return (vi)_mm256_add_epi32((__m256i)sum, _mm256_add_epi32(even, odd));
}
#endif
static inline vi nearest(vf x) { return (vi)_mm256_cvtps_epi32(x); }
static inline bool any_outside(vi x) { return _mm256_movemask_ps((vf)((x > 127) | (x < -128))); }
static inline int append_outside(vi x, int32_t first, int32_t* numbers, int32_t* places) {
  const vi outside = (x > 127) | (x < -128);
  int n = 0;
  for (uint32_t lanes = (uint32_t)_mm256_movemask_ps((vf)outside); lanes; lanes &= lanes - 1, ++n) {
    int32_t all[kLanes];
    memcpy(all, &x, sizeof all);
    numbers[n] = all[__builtin_ctz(lanes)];
    places[n] = first + __builtin_ctz(lanes);
  }
  return n;
}
static inline int32_t lane_most(vi x) {
  int32_t most = x[0];
  for (int i = 1; i < kLanes; ++i) most = x[i] > most ? x[i] : most;
  return most;
}
static inline int32_t lane_total(vu x) {
  uint32_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += x[i];
  return (int32_t)total;
}
static inline void store_quads(Quad* out, vi x) {
  const __m128i low = _mm256_castsi256_si128((__m256i)x), high = _mm256_extracti128_si256((__m256i)x, 1);
  const __m128i words = _mm_packs_epi32(low, high);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packs_epi16(words, words));
}
#elif defined(__ARM_FEATURE_DOTPROD)
#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int kQuadRows = 8; /* mmla.h zips in the other registers */
#else
constexpr int kQuadRows = 12;
#endif
static inline vi quad_dot(vi sum, vu weights, vi row) {
  return (vi)vdotq_s32((int32x4_t)sum, (int8x16_t)weights, (int8x16_t)row);
}
static inline vi nearest(vf x) { return (vi)vcvtnq_s32_f32((float32x4_t)x); }
static inline bool any_outside(vi x) { return vmaxvq_u32((uint32x4_t)(x + 128)) > 255; }
static inline int32_t lane_most(vi x) { return vmaxvq_s32((int32x4_t)x); }
static inline int32_t lane_total(vu x) { return (int32_t)vaddvq_u32((uint32x4_t)x); }
static inline void store_quads(Quad* out, vi x) {
  const int16x4_t words = vqmovn_s32((int32x4_t)x);
  vst1_lane_u32(out, vreinterpret_u32_s8(vqmovn_s16(vcombine_s16(words, words))), 0);
}
#else /* not offered as a compute mode: only so that what includes this compiles for any CPU */
constexpr int kQuadRows = 4;
static inline vi quad_dot(vi sum, vu weights, vi row) {
  for (int byte = 0; byte < kQuad; ++byte)
    sum += (vi)(weights >> (8 * byte) & 0xFFu) * ((row << (24 - 8 * byte)) >> 24);
  return sum;
}
static inline vi nearest(vf x) {
  vi whole;
  for (int i = 0; i < kLanes; ++i) whole[i] = (int32_t)__builtin_rintf(x[i]);
  return whole;
}
static inline bool any_outside(vi x) {
  for (int i = 0; i < kLanes; ++i)
    if (x[i] > 127 || x[i] < -128) return true;
  return false;
}
static inline int32_t lane_most(vi x) {
  int32_t most = x[0];
  for (int i = 1; i < kLanes; ++i) most = x[i] > most ? x[i] : most;
  return most;
}
static inline int32_t lane_total(vu x) { return (int32_t)(x[0] + x[1] + x[2] + x[3]); }
static inline void store_quads(Quad* out, vi x) {
  int8_t* bytes = reinterpret_cast<int8_t*>(out);
  for (int i = 0; i < kLanes; ++i) bytes[i] = (int8_t)(x[i] > 127 ? 127 : x[i] < -128 ? -128 : x[i]);
}
#endif
#if EC_LANES == 4
static inline int append_outside(vi x, int32_t first, int32_t* numbers, int32_t* places) {
  int n = 0;
  for (int i = 0; i < kLanes; ++i)
    if (x[i] > 127 || x[i] < -128) {
      numbers[n] = x[i];
      places[n++] = first + i;
    }
  return n;
}
#endif

}  // namespace EC_ISA

#endif
