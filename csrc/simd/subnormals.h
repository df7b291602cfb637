/* While it lives, this thread flushes subnormal numbers to zero: some CPUs compute with them a hundred times
 * slower. Moments of dead units decay into them, and so do an attention's shares near 0.
 */
#ifndef EMBEDCACHE_CPU_SUBNORMALS_H
#define EMBEDCACHE_CPU_SUBNORMALS_H

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace ec {

class FlushSubnormals {
#if defined(__x86_64__)
 public:
  FlushSubnormals() { _mm_setcsr(before_ | 0x8040u); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_ = _mm_getcsr();
#endif
};

}  // namespace ec

#endif
