/* kernels.h for AVX-512 with its BF16 instructions, in bfloat16. */
#define EC_ISA ec_avx512bf16
#define EC_LANES 16
#define EC_WORD Pair
#include "kernels.h"

namespace ec {

extern const Encoders encoders_avx512bf16 = {"cpu-avx512-bf16", ec_avx512bf16::create, ec_avx512bf16::destroy,
                                             ec_avx512bf16::run};

}  // namespace ec
