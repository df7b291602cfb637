/* kernels.h for AVX-512 with its VNNI instructions, in int8. */
#define EC_ISA ec_int8_avx512vnni
#define EC_LANES 16
#define EC_WORD float
#define EC_INT8
#include "kernels.h"

namespace ec {

extern const Encoders int8_avx512vnni = {"cpu-avx512-vnni", ec_int8_avx512vnni::create,
                                         ec_int8_avx512vnni::destroy, ec_int8_avx512vnni::run};

}  // namespace ec
