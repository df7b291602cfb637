/* Which of the instruction sets that the libraries are compiled for this machine has. */
#ifndef EMBEDCACHE_SIMD_ISA_H
#define EMBEDCACHE_SIMD_ISA_H

#include <cstdlib>
#include <string>

namespace ec {

struct Isa {
  bool avx2 = false;       /* with FMA and F16C */
  bool avx512 = false;     /* F, BW, DQ and VL */
  bool avx512bf16 = false; /* and BF16 */
};

/* EMBEDCACHE_ISA=avx512 (without BF16), avx2 or plain asks for less than the machine has (for tests). */
inline Isa usable_isa() {
  Isa isa;
#ifdef EC_X86
  const char* asked = std::getenv("EMBEDCACHE_ISA");
  const std::string most = asked ? asked : "";
  isa.avx2 = most != "plain" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  isa.avx512 = isa.avx2 && most != "avx2" && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
#ifdef EC_AVX512BF16
  isa.avx512bf16 = isa.avx512 && most.empty() && __builtin_cpu_supports("avx512bf16");
#endif
#endif
  return isa;
}

}  // namespace ec

#endif
