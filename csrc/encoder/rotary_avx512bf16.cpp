/* rotary_kernels.h for AVX-512 with its BF16 instructions, in bfloat16. */
#define EC_ISA ec_rotary_avx512bf16
#define EC_LANES 16
#define EC_WORD Pair
#include "rotary_kernels.h"

namespace ec {

extern const Rotaries rotaries_avx512bf16 = {ec_rotary_avx512bf16::create, ec_rotary_avx512bf16::destroy,
                                             ec_rotary_avx512bf16::run};

}  // namespace ec
