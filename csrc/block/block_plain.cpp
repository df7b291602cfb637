/* kernels.h for any CPU: the compiler's vectors of four. */
#define EC_ISA ec_block_plain
#define EC_LANES 4
#include "kernels.h"

namespace ec {

extern const BlockKernels block_kernels_plain = {EC_PLAIN_NAME, ec_block_plain::create};

}  // namespace ec
