/* The C interface: checks the arguments, chooses the instruction set, keeps a thread's memory, reports
 * errors. */
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "../simd/isa.h"
#include "../simd/memory.h"
#include "../simd/subnormals.h"
#include "rotaries.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

struct ec_encoder {
  decltype(ec::Encoders::destroy) destroy;
  decltype(ec::Encoders::run) run;
  void* model;
  int64_t vocabulary, positions, layers;
};

namespace ec {

namespace {

thread_local std::string last_error;

#ifdef EC_X86
const Encoders* choose_int8(const Isa& isa) {
#ifdef EC_AVX512BF16
  if (isa.avx512bf16 && isa.avx512vnni) return &int8_avx512bf16vnni;
#endif
  if (isa.avx512vnni) return &int8_avx512vnni;
#ifdef EC_AVXVNNI
  if (isa.avxvnni) return &int8_avxvnni;
#endif
  return isa.avx512 ? &int8_avx512 : isa.avx2 ? &int8_avx2 : nullptr;
}
#endif

/* NULL: this machine does not have the instructions. */
const Encoders* choose_kernels(int32_t compute) {
#ifdef EC_X86
  const Isa isa = usable_isa();
  if (compute == EC_ENCODE_INT8) return choose_int8(isa);
  if (compute == EC_ENCODE_BFLOAT16) {
#ifdef EC_AVX512BF16
    if (isa.avx512bf16) return &encoders_avx512bf16;
#endif
    return nullptr;
  }
  if (isa.avx512) return &encoders_avx512;
  if (isa.avx2) return &encoders_avx2;
#endif
#ifdef EC_ARM
  const Isa isa = usable_isa();
  if (compute == EC_ENCODE_INT8) return isa.neoni8mm ? &int8_neoni8mm : isa.neondot ? &int8_neondot : nullptr;
  if (compute == EC_ENCODE_BFLOAT16 && isa.neonbf16) return &encoders_neonbf16;
#endif
  return compute == EC_ENCODE_FLOAT32 ? &encoders_plain : nullptr;
}

/* NULL: this machine does not have the instructions. */
const Rotaries* choose_rotary(int32_t compute) {
#ifdef EC_X86
  const Isa isa = usable_isa();
#ifdef EC_AVX512BF16
  if (compute == EC_ENCODE_BFLOAT16 && isa.avx512bf16) return &rotaries_avx512bf16;
#endif
  if (compute == EC_ENCODE_FLOAT32 && isa.avx512) return &rotaries_avx512;
  if (compute == EC_ENCODE_FLOAT32 && isa.avx2) return &rotaries_avx2;
#endif
#ifdef EC_ARM
  if (compute == EC_ENCODE_BFLOAT16 && usable_isa().neonbf16) return &rotaries_neonbf16;
#endif
  return compute == EC_ENCODE_FLOAT32 ? &rotaries_plain : nullptr;
}

std::string wrong_rotary(const ec_rotary_spec* s) {
  if (!s) return "no encoder";
  const int64_t each = s->compute == EC_ENCODE_BFLOAT16 ? 2 : 1;
  if (s->vocabulary < 1 || s->positions < 1 || s->dim < 1 || s->inner < 1 || s->heads < 1 ||
      s->key_heads < 1 || s->head < 2 || s->layers < 1)
    return "sizes must be 1 or more";
  if (s->heads % s->key_heads || s->head % 2 || s->inner % each || s->dim % each)
    return "the keys' heads do not divide the queries', or a size is odd";
  if (s->activation < EC_GELU || s->activation > EC_SILU) return "unknown activation";
  return "";
}

constexpr int64_t kMostInt8 = 65536; /* 127 * 255 of each: an int32 holds their sum */

std::string wrong_spec(const ec_encoder_spec* s) {
  if (!s) return "no encoder";
  const int64_t each = s->compute == EC_ENCODE_FLOAT32 ? 1 : 2;
  if (s->vocabulary < 1 || s->positions < 1 || s->width < 1 || s->dim < 1 || s->inner < 1 || s->heads < 1 ||
      s->layers < 1)
    return "sizes must be 1 or more";
  if (s->dim % s->heads || s->dim / s->heads % each || s->inner % each || s->width % each)
    return "the heads do not divide the width, or a size is odd";
  if (s->width != s->dim && !s->projection.weight) return "embeddings of another width need a projection";
  if (s->width > 3 * s->dim) return "embeddings of more than three times the width";
  if (s->compute == EC_ENCODE_INT8 && (s->dim > kMostInt8 || s->inner > kMostInt8))
    return "sums of more than 65,536 products, too many for int8";
  if (s->activation < EC_GELU || s->activation > EC_RELU) return "unknown activation";
  for (int64_t i = 0; s->bucket && i < 2 * s->positions - 1; ++i)
    if (s->bucket[i] < (i ? s->bucket[i - 1] : 0) || s->bucket[i] >= s->buckets)
      return "buckets of distances are not ascending, or there are fewer";
  for (int64_t i = 0; s->bucket && i < s->layers; ++i)
    if (!s->layer[i].distance_key || !s->layer[i].distance_query) return "a layer without distances";
  return "";
}

std::string wrong_batch(const ec_encoder& e, const int32_t* ids, const int64_t* offsets, int64_t n,
                        const ec_output* outputs, int32_t n_outputs) {
  if (offsets[0] != 0) return "offsets do not start at 0";
  for (int64_t i = 0; i < n; ++i)
    if (offsets[i + 1] <= offsets[i] || offsets[i + 1] - offsets[i] > e.positions)
      return "row " + std::to_string(i) + " is empty or longer than the encoder's positions";
  for (int64_t t = 0; t < offsets[n]; ++t)
    if (ids[t] < 0 || ids[t] >= e.vocabulary)
      return "id " + std::to_string(ids[t]) + " is not in the vocabulary";
  for (int32_t o = 0; o < n_outputs; ++o)
    if (outputs[o].layer < 0 || outputs[o].layer > e.layers || outputs[o].pooling < EC_POOL_TOKENS ||
        outputs[o].pooling >= EC_POOLINGS)
      return "no such layer or pooling";
  return "";
}

/* A thread's working memory, kept from batch to batch. */
class Scratch {
 public:
  ~Scratch() { memory_give_back(memory_); }
  void* take(int64_t bytes) {
    if (bytes > size_) {
      memory_give_back(memory_);
      size_ = 0;
      memory_ = memory_take(bytes);
      if (!memory_) throw std::bad_alloc();
      size_ = bytes;
    }
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(memory_, size_);
#endif
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  int64_t size_ = 0;
};

thread_local Scratch scratch;

/* An encoder of either kind; NULL on failure, and last_error says why. wrong: of a spec, "" where nothing is.
 */
template <class Spec, class Kernels>
ec_encoder* create(const Spec* spec, std::string (*wrong)(const Spec*),
                   const Kernels* (*choose)(int32_t compute)) try {
  last_error = wrong(spec);
  if (!last_error.empty()) return nullptr;
  const Kernels* kernels = choose(spec->compute);
  last_error = "this machine has no instructions for it";
  if (!kernels) return nullptr;
  auto encoder = std::make_unique<ec_encoder>();
  *encoder = {kernels->destroy, kernels->run,    kernels->create(*spec),
              spec->vocabulary, spec->positions, spec->layers};
  last_error = "not enough memory for the packed weights";
  return encoder->model ? encoder.release() : nullptr;
} catch (const std::exception& error) {
  last_error = error.what();
  return nullptr;
}

}  // namespace

}  // namespace ec

#pragma GCC visibility push(default)
extern "C" {

int32_t ec_encoder_abi_version(void) { return EC_ENCODER_ABI_VERSION; }
const char* ec_encoder_last_error(void) { return ec::last_error.c_str(); }

const char* ec_encoder_backend(int32_t compute) {
  const ec::Encoders* kernels = ec::choose_kernels(compute);
  return kernels ? kernels->name : "";
}

ec_encoder* ec_encoder_create(const ec_encoder_spec* spec) {
  return ec::create(spec, ec::wrong_spec, ec::choose_kernels);
}

ec_encoder* ec_rotary_create(const ec_rotary_spec* spec) {
  return ec::create(spec, ec::wrong_rotary, ec::choose_rotary);
}

void ec_encoder_destroy(ec_encoder* encoder) {
  if (!encoder) return;
  encoder->destroy(encoder->model);
  delete encoder;
}

int32_t ec_encoder_run(const ec_encoder* encoder, const int32_t* ids, const int64_t* offsets, int64_t n,
                       const ec_output* outputs, int32_t n_outputs) try {
  if (n == 0) return 0;
  ec::last_error = ec::wrong_batch(*encoder, ids, offsets, n, outputs, n_outputs);
  if (!ec::last_error.empty()) return 1;
  [[maybe_unused]] const ec::FlushSubnormals flush;
  const int64_t bytes = encoder->run(encoder->model, ids, offsets, n, outputs, n_outputs, nullptr);
  encoder->run(encoder->model, ids, offsets, n, outputs, n_outputs, ec::scratch.take(bytes));
  return 0;
} catch (const std::exception&) {
  ec::last_error = "not enough memory for a batch of " + std::to_string(offsets[n]) + " tokens";
  return 1;
}

}  // extern "C"
#pragma GCC visibility pop
