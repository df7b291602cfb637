/* kernels.h for NEON with ARM's BF16 instructions, for the bfloat16 compute mode. */
#define EC_ISA ec_neonbf16
#define EC_LANES 4
#include "kernels.h"

namespace ec {

extern const Kernels kernels_neonbf16 = {"cpu-neon", ec_neonbf16::create};

}  // namespace ec
