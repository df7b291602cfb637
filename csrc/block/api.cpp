/* The C interface: checks the arguments, chooses the instruction set, reports errors. */
#include <exception>
#include <string>
#include <vector>

#include "../simd/isa.h"
#include "check.h"
#include "jobs.h"

namespace ec {

namespace {

thread_local std::string last_error;

int fail(int code, const std::string& message) {
  last_error = message;
  return code;
}

/* The best of what this machine has. The instructions for bfloat16 are used for that compute mode alone. */
const BlockKernels& choose_kernels([[maybe_unused]] int32_t compute) {
#ifdef EC_X86
  const Isa isa = usable_isa();
#ifdef EC_AVX512BF16
  if (isa.avx512bf16 && compute == EC_COMPUTE_BFLOAT16) return block_kernels_avx512bf16;
#endif
  if (isa.avx512) return block_kernels_avx512;
  if (isa.avx2) return block_kernels_avx2;
#endif
  return block_kernels_plain;
}

}  // namespace

}  // namespace ec

#pragma GCC visibility push(default)
extern "C" {

int32_t ec_block_abi_version(void) { return EC_BLOCK_ABI_VERSION; }
const char* ec_block_backend(int32_t compute) { return ec::choose_kernels(compute).name; }
const char* ec_block_last_error(void) { return ec::last_error.c_str(); }

int32_t ec_block_train(const ec_states* states, const ec_block_shape* shape, const ec_task* tasks,
                       int32_t n_tasks, const ec_block* blocks, ec_block_result* results, int32_t n_blocks,
                       const ec_block_options* options) try {
  const std::string wrong =
      ec::check_blocks(states, shape, tasks, n_tasks, blocks, results, n_blocks, options);
  if (!wrong.empty()) return ec::fail(EC_ERROR_ARGUMENT, wrong);
  if (options->compute != EC_COMPUTE_FLOAT32 && options->compute != EC_COMPUTE_BFLOAT16)
    return ec::fail(EC_ERROR_UNSUPPORTED, "blocks are computed in float32 or bfloat16");
  std::vector<ec::BlockOrder> orders;
  for (int32_t i = 0; i < n_blocks; ++i) {
    ec::clear_scores(results[i], blocks[i].epochs);
    orders.push_back({states, shape, &tasks[blocks[i].task], &blocks[i], &results[i], options, 0, 0});
  }
  const int code =
      ec::train_blocks(ec::choose_kernels(options->compute), orders.data(), n_blocks, options->threads);
  return code == EC_OK ? code : ec::fail(code, "not enough memory for the blocks' state, or no more threads");
} catch (const std::exception& error) {
  return ec::fail(EC_ERROR_MEMORY, error.what());
}

}  // extern "C"
#pragma GCC visibility pop
