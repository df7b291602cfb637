/* Which of the instruction sets that the libraries are compiled for this machine has. */
#ifndef EMBEDCACHE_SIMD_ISA_H
#define EMBEDCACHE_SIMD_ISA_H

#include <cstdlib>
#include <string>

#ifdef EC_X86
#include <cpuid.h>
#endif

namespace ec {

#ifdef EC_X86
/* GCC 12's __builtin_cpu_supports does not know it. */
inline bool has_avxvnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}
#endif

struct Isa {
  bool avx2 = false;       /* with FMA and F16C */
  bool avx512 = false;     /* F, BW, DQ and VL */
  bool avx512bf16 = false; /* and BF16 */
  bool avxvnni = false;    /* AVX-VNNI beside AVX2 */
  bool avx512vnni = false; /* VNNI beside AVX-512 */
};

/* EMBEDCACHE_ISA=avx512 (without BF16 and VNNI), avx2 or plain asks for less than the machine has, avx512vnni
 * for no BF16 (for tests). */
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
  isa.avx512vnni =
      isa.avx512 && (most.empty() || most == "avx512vnni") && __builtin_cpu_supports("avx512vnni");
#ifdef EC_AVXVNNI
  isa.avxvnni = isa.avx2 && (most.empty() || most == "avxvnni") && has_avxvnni();
#endif
#endif
  return isa;
}

}  // namespace ec

#endif
