/* kernels.h for AVX-512. */
#define EC_ISA ec_block_avx512
#define EC_LANES 16
#include "kernels.h"

namespace ec {

extern const BlockKernels block_kernels_avx512 = {"cpu-avx512", ec_block_avx512::create};

}  // namespace ec
