/* kernels.h for NEON with ARM's BF16 instructions, in bfloat16. */
#define EC_ISA ec_neonbf16
#define EC_LANES 4
#define EC_WORD Pair
#include "kernels.h"

namespace ec {

extern const Encoders encoders_neonbf16 = {"cpu-neon-bf16", ec_neonbf16::create, ec_neonbf16::destroy,
                                           ec_neonbf16::run};

}  // namespace ec
