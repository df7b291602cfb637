/* kernels.h for AVX-512. */
#define EC_ISA ec_avx512
#define EC_LANES 16
#define EC_WORD float
#include "kernels.h"

namespace ec {

extern const Encoders encoders_avx512 = {"cpu-avx512", ec_avx512::create, ec_avx512::destroy, ec_avx512::run};

}  // namespace ec
