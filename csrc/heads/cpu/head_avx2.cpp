/* kernels.h for AVX2 with FMA and F16C. */
#define EC_ISA ec_avx2
#define EC_LANES 8
#include "kernels.h"

namespace ec {

extern const Kernels kernels_avx2 = {"cpu-avx2", ec_avx2::create};

}  // namespace ec
