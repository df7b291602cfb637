/* kernels.h for AVX-512 with its BF16 instructions, for the bfloat16 compute mode. */
#define EC_ISA ec_block_avx512bf16
#define EC_LANES 16
#include "kernels.h"

namespace ec {

extern const BlockKernels block_kernels_avx512bf16 = {"cpu-avx512-bf16", ec_block_avx512bf16::create};

}  // namespace ec
