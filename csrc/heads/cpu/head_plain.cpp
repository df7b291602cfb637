/* kernels.h for any CPU: the compiler's vectors of four floats. */
#define EC_ISA ec_plain
#define EC_LANES 4
#include "kernels.h"

namespace ec {

extern const Kernels kernels_plain = {EC_PLAIN_NAME, ec_plain::create};

}  // namespace ec
