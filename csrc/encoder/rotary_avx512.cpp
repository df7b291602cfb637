/* rotary_kernels.h for AVX-512. */
#define EC_ISA ec_rotary_avx512
#define EC_LANES 16
#define EC_WORD float
#include "rotary_kernels.h"

namespace ec {

extern const Rotaries rotaries_avx512 = {ec_rotary_avx512::create, ec_rotary_avx512::destroy,
                                         ec_rotary_avx512::run};

}  // namespace ec
