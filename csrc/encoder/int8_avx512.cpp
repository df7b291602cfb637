/* kernels.h for AVX-512, in int8 without an instruction for it. */
#define EC_ISA ec_int8_avx512
#define EC_LANES 16
#define EC_WORD float
#define EC_INT8
#include "kernels.h"

namespace ec {

extern const Encoders int8_avx512 = {"cpu-avx512", ec_int8_avx512::create, ec_int8_avx512::destroy,
                                     ec_int8_avx512::run};

}  // namespace ec
