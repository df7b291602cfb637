/* What the host code throws and ec_train turns into a code and ec_last_error(). */
#ifndef EMBEDCACHE_CUDA_ERROR_H
#define EMBEDCACHE_CUDA_ERROR_H

#include <stdint.h>

#include <string>

#include "../heads.h"

namespace ec {

struct Error {
  int32_t code;
  std::string message;
};

inline std::string megabytes(int64_t bytes) { return std::to_string((bytes + 1048575) / 1048576) + " MiB"; }

inline Error no_room(const std::string& what, int64_t needed, int64_t free) {
  return {EC_ERROR_MEMORY, "the device has no room for " + what + ": " + megabytes(needed) + " needed, " +
                               megabytes(free) + " free"};
}

}  // namespace ec
#endif
