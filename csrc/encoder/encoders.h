/* The functions of each instruction set's build. Plain functions only, as in ../heads/cpu/team.h. */
#ifndef EMBEDCACHE_ENCODER_ENCODERS_H
#define EMBEDCACHE_ENCODER_ENCODERS_H

#include "encoder.h"

namespace ec {

struct Encoders {
  const char* name;
  void* (*create)(const ec_encoder_spec& spec); /* NULL: not enough memory */
  void (*destroy)(void* model);
  int64_t (*run)(const void* model, const int32_t* ids, const int64_t* offsets, int64_t n,
                 const ec_output* outputs, int32_t n_outputs, void* memory);
};

extern const Encoders encoders_plain, encoders_avx2, encoders_avx512, encoders_avx512bf16, encoders_neonbf16;
/* The same for EC_ENCODE_INT8. */
extern const Encoders int8_avx2, int8_avxvnni, int8_avx512, int8_avx512vnni, int8_avx512bf16vnni,
    int8_neondot, int8_neoni8mm;

}  // namespace ec

#endif
