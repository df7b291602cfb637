/* kernels.h for AVX-512 with its VNNI and BF16 instructions, in int8 and bfloat16. */
#define EC_ISA ec_int8_avx512bf16vnni
#define EC_LANES 16
#define EC_WORD Pair
#define EC_INT8
#include "kernels.h"

namespace ec {

extern const Encoders int8_avx512bf16vnni = {"cpu-avx512-bf16-vnni", ec_int8_avx512bf16vnni::create,
                                             ec_int8_avx512bf16vnni::destroy, ec_int8_avx512bf16vnni::run};

}  // namespace ec
