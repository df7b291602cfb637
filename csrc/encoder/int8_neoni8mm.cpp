/* kernels.h for NEON with ARM's I8MM and BF16 instructions, in int8 and bfloat16. */
#define EC_ISA ec_int8_neoni8mm
#define EC_LANES 4
#define EC_WORD Pair
#define EC_INT8
#include "kernels.h"

namespace ec {

extern const Encoders int8_neoni8mm = {"cpu-neon-bf16-i8mm", ec_int8_neoni8mm::create,
                                       ec_int8_neoni8mm::destroy, ec_int8_neoni8mm::run};

}  // namespace ec
