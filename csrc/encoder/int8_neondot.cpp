/* kernels.h for NEON with ARM's sdot instructions, in int8. */
#define EC_ISA ec_int8_neondot
#define EC_LANES 4
#define EC_WORD float
#define EC_INT8
#include "kernels.h"

namespace ec {

extern const Encoders int8_neondot = {"cpu-neon-dot", ec_int8_neondot::create, ec_int8_neondot::destroy,
                                      ec_int8_neondot::run};

}  // namespace ec
