/* The functions of each instruction set's build for rotary encoders. Plain functions only, as in encoders.h.
 */
#ifndef EMBEDCACHE_ENCODER_ROTARIES_H
#define EMBEDCACHE_ENCODER_ROTARIES_H

#include "encoders.h"
#include "rotary.h"

namespace ec {

struct Rotaries {
  void* (*create)(const ec_rotary_spec& spec); /* NULL: not enough memory */
  decltype(Encoders::destroy) destroy;
  decltype(Encoders::run) run;
};

extern const Rotaries rotaries_plain, rotaries_avx2, rotaries_avx512, rotaries_avx512bf16, rotaries_neonbf16;

}  // namespace ec

#endif
