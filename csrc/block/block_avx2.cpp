/* kernels.h for AVX2 and FMA. */
#define EC_ISA ec_block_avx2
#define EC_LANES 8
#include "kernels.h"

namespace ec {

extern const BlockKernels block_kernels_avx2 = {"cpu-avx2", ec_block_avx2::create};

}  // namespace ec
