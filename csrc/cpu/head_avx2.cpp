/* head.h for AVX2 with FMA and F16C. */
#define EC_ISA ec_avx2
#define EC_LANES 8
#include "head.h"

namespace ec {

extern const Kernels kernels_avx2 = {"cpu-avx2", ec_avx2::create, ec_avx2::train, ec_avx2::destroy};

}  // namespace ec
