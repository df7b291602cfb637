/* Which of the instruction sets that the libraries are compiled for this machine has. */
#ifndef EMBEDCACHE_SIMD_ISA_H
#define EMBEDCACHE_SIMD_ISA_H

#include <cstdlib>
#include <string>

#ifdef EC_X86
#include <cpuid.h>
#endif
#ifdef EC_ARM
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace ec {

#ifdef EC_X86
/* What the processor says of itself. The compilers' __builtin_cpu_supports is not asked: GCC 12's knows no
 * AVX-VNNI, and Zig's runtime answers no to everything. */
class Cpuid {
 public:
  Cpuid() {
    unsigned unused = 0, low = 0, high = 0;
    __get_cpuid_count(1, 0, &unused, &unused, &basic_, &unused);
    __get_cpuid_count(7, 0, &unused, &b_, &c_, &unused);
    __get_cpuid_count(7, 1, &a_, &unused, &unused, &unused);
    if (basic_ >> 27 & 1)
      asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0)); /* what the system saves of a thread */
    ymm_ = (low & 0x06) == 0x06;
    zmm_ = (low & 0xE6) == 0xE6;
  }
  bool avx2() const { return ymm_ && (basic_ >> 12 & 1) && (basic_ >> 29 & 1) && (b_ >> 5 & 1); }
  bool avx512() const { return zmm_ && (b_ >> 16 & 1) && (b_ >> 17 & 1) && (b_ >> 30 & 1) && (b_ >> 31 & 1); }
  bool avx512vnni() const { return c_ >> 11 & 1; }
  bool avxvnni() const { return a_ >> 4 & 1; }
  bool avx512bf16() const { return a_ >> 5 & 1; }

 private:
  unsigned basic_ = 0, a_ = 0, b_ = 0, c_ = 0;
  bool ymm_ = false, zmm_ = false;
};
#endif

#ifdef EC_ARM
/* What the system says of the processor: numbers of Linux's asm/hwcap.h, names of macOS. */
inline bool arm_has([[maybe_unused]] int list, [[maybe_unused]] int bit, [[maybe_unused]] const char* name) {
#if defined(__linux__)
  return getauxval(list == 1 ? AT_HWCAP : AT_HWCAP2) >> bit & 1;
#elif defined(__APPLE__)
  int has = 0;
  size_t size = sizeof has;
  return sysctlbyname(name, &has, &size, nullptr, 0) == 0 && has;
#else
  return false;
#endif
}
#endif

struct Isa {
  bool avx2 = false;       /* with FMA and F16C */
  bool avx512 = false;     /* F, BW, DQ and VL */
  bool avx512bf16 = false; /* and BF16 */
  bool avxvnni = false;    /* AVX-VNNI beside AVX2 */
  bool avx512vnni = false; /* VNNI beside AVX-512 */
  bool neondot = false;    /* sdot */
  bool neonbf16 = false;   /* bfdot and bfmmla */
  bool neoni8mm = false;   /* smmla beside both */
};

/* EMBEDCACHE_ISA=avx512 (without BF16 and VNNI), avx2 or plain asks for less than the machine has, avx512vnni
 * for no BF16 (for tests). On ARM: neon (float32 alone), neondot (and int8, without BF16 and I8MM). */
inline Isa usable_isa() {
  Isa isa;
#ifdef EC_X86
  const char* asked = std::getenv("EMBEDCACHE_ISA");
  const std::string most = asked ? asked : "";
  const Cpuid cpu;
  isa.avx2 = most != "plain" && cpu.avx2();
  isa.avx512 = isa.avx2 && most != "avx2" && cpu.avx512();
#ifdef EC_AVX512BF16
  isa.avx512bf16 = isa.avx512 && most.empty() && cpu.avx512bf16();
#endif
  isa.avx512vnni = isa.avx512 && (most.empty() || most == "avx512vnni") && cpu.avx512vnni();
#ifdef EC_AVXVNNI
  isa.avxvnni = isa.avx2 && (most.empty() || most == "avxvnni") && cpu.avxvnni();
#endif
#endif
#ifdef EC_ARM
  const char* asked = std::getenv("EMBEDCACHE_ISA");
  const std::string most = asked ? asked : "";
  isa.neondot = (most.empty() || most == "neondot") && arm_has(1, 20, "hw.optional.arm.FEAT_DotProd");
  isa.neonbf16 = most.empty() && arm_has(2, 14, "hw.optional.arm.FEAT_BF16");
  isa.neoni8mm = isa.neondot && isa.neonbf16 && arm_has(2, 13, "hw.optional.arm.FEAT_I8MM");
#endif
  return isa;
}

}  // namespace ec

#endif
