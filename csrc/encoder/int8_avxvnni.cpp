/* kernels.h for AVX2 with AVX-VNNI, in int8. */
#define EC_ISA ec_int8_avxvnni
#define EC_LANES 8
#define EC_WORD float
#define EC_INT8
#include "kernels.h"

namespace ec {

extern const Encoders int8_avxvnni = {"cpu-avx2-vnni", ec_int8_avxvnni::create, ec_int8_avxvnni::destroy,
                                      ec_int8_avxvnni::run};

}  // namespace ec
