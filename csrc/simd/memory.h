/* Memory for the engines. Only plain functions: files compiled for one instruction set include this. */
#ifndef EMBEDCACHE_CPU_MEMORY_H
#define EMBEDCACHE_CPU_MEMORY_H

#include <stdint.h>

namespace ec {

/* Zeroed memory on a cache line's (large: a huge page's) boundary, or NULL. */
void* memory_take(int64_t bytes);
void memory_give_back(void* memory);

}  // namespace ec

#endif
