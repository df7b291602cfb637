/* rotary_kernels.h for AVX2 and FMA. */
#define EC_ISA ec_rotary_avx2
#define EC_LANES 8
#define EC_WORD float
#include "rotary_kernels.h"

namespace ec {

extern const Rotaries rotaries_avx2 = {ec_rotary_avx2::create, ec_rotary_avx2::destroy, ec_rotary_avx2::run};

}  // namespace ec
