/* kernels.h for AVX-512 F, BW, DQ and VL. */
#define EC_ISA ec_avx512
#define EC_LANES 16
#include "kernels.h"

namespace ec {

extern const Kernels kernels_avx512 = {"cpu-avx512", ec_avx512::create};

}  // namespace ec
