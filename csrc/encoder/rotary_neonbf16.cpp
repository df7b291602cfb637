/* rotary_kernels.h for NEON with ARM's BF16 instructions, in bfloat16. */
#define EC_ISA ec_rotary_neonbf16
#define EC_LANES 4
#define EC_WORD Pair
#include "rotary_kernels.h"

namespace ec {

extern const Rotaries rotaries_neonbf16 = {ec_rotary_neonbf16::create, ec_rotary_neonbf16::destroy,
                                           ec_rotary_neonbf16::run};

}  // namespace ec
