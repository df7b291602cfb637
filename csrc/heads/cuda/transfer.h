/* A large copy between the caller's memory and the device: see device.cuh, and device_emulation.h on the
 * host. */
#ifndef EMBEDCACHE_CUDA_TRANSFER_H
#define EMBEDCACHE_CUDA_TRANSFER_H

#include <stdint.h>

namespace ec {

/* Rows of `bytes` each, `pitch` apart on the host, dense on the device. A single row may be of any length. */
struct Transfer {
  char* host;
  char* device;
  int64_t rows, bytes, pitch;
};

}  // namespace ec
#endif
