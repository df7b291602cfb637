/* kernels.h for AVX2 and FMA, in int8 without an instruction for it. */
#define EC_ISA ec_int8_avx2
#define EC_LANES 8
#define EC_WORD float
#define EC_INT8
#include "kernels.h"

namespace ec {

extern const Encoders int8_avx2 = {"cpu-avx2", ec_int8_avx2::create, ec_int8_avx2::destroy,
                                   ec_int8_avx2::run};

}  // namespace ec
