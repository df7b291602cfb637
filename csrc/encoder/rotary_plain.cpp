/* rotary_kernels.h for any CPU: the compiler's vectors of four floats, NEON on ARM. */
#define EC_ISA ec_rotary_plain
#define EC_LANES 4
#define EC_WORD float
#include "rotary_kernels.h"

namespace ec {

extern const Rotaries rotaries_plain = {ec_rotary_plain::create, ec_rotary_plain::destroy,
                                        ec_rotary_plain::run};

}  // namespace ec
