/* kernels.h for AVX2 and FMA. */
#define EC_ISA ec_avx2
#define EC_LANES 8
#define EC_WORD float
#include "kernels.h"

namespace ec {

extern const Encoders encoders_avx2 = {"cpu-avx2", ec_avx2::create, ec_avx2::destroy, ec_avx2::run};

}  // namespace ec
