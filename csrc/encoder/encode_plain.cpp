/* kernels.h for any CPU: the compiler's vectors of four floats, NEON on ARM. */
#define EC_ISA ec_plain
#define EC_LANES 4
#define EC_WORD float
#include "kernels.h"

namespace ec {

extern const Encoders encoders_plain = {EC_PLAIN_NAME, ec_plain::create, ec_plain::destroy, ec_plain::run};

}  // namespace ec
