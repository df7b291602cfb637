/* The C interface on the CPU: checks the arguments, chooses the instruction set, reports errors. */
#include <exception>
#include <string>

#include "../../simd/isa.h"
#include "../check.h"
#include "team.h"

namespace ec {

namespace {

thread_local std::string last_error;

int fail(int code, const std::string& message) {
  last_error = message;
  return code;
}

/* The best of what this machine has. The instructions for bfloat16 are used for that compute mode alone. */
const Kernels& choose_kernels([[maybe_unused]] int32_t compute) {
#ifdef EC_X86
  const Isa isa = usable_isa();
#ifdef EC_AVX512BF16
  if (isa.avx512bf16 && compute == EC_COMPUTE_BFLOAT16) return kernels_avx512bf16;
#endif
  if (isa.avx512) return kernels_avx512;
  if (isa.avx2) return kernels_avx2;
#endif
#ifdef EC_ARM
  if (usable_isa().neonbf16 && compute == EC_COMPUTE_BFLOAT16) return kernels_neonbf16;
#endif
  return kernels_plain;
}

}  // namespace

}  // namespace ec

#pragma GCC visibility push(default)
extern "C" {

int32_t ec_abi_version(void) { return EC_ABI_VERSION; }
const char* ec_backend(void) { return ec::choose_kernels(EC_COMPUTE_FLOAT32).name; }
int32_t ec_device_count(void) { return 1; }
const char* ec_last_error(void) { return ec::last_error.c_str(); }

int32_t ec_train(const ec_task* tasks, int32_t n_tasks, const ec_head* heads, ec_result* results,
                 int32_t n_heads, const ec_options* options) try {
  const std::string wrong = ec::check(tasks, n_tasks, heads, results, n_heads, options);
  if (!wrong.empty()) return ec::fail(EC_ERROR_ARGUMENT, wrong);
  if (options->compute != EC_COMPUTE_FLOAT32 && options->compute != EC_COMPUTE_BFLOAT16)
    return ec::fail(EC_ERROR_UNSUPPORTED, "the CPU library computes in float32 or bfloat16");
  for (int32_t i = 0; i < n_heads; ++i) ec::clear_scores(results[i], options->epochs);
  const int code =
      ec::bank_train(ec::choose_kernels(options->compute), tasks, heads, results, n_heads, *options);
  return code == EC_OK ? code : ec::fail(code, "not enough memory for the heads' state, or no more threads");
} catch (const std::exception& error) {
  return ec::fail(EC_ERROR_MEMORY, error.what());
}

}  // extern "C"
#pragma GCC visibility pop
