/* Sizes of the blocks in which a batch goes from one product to the next. */
#ifndef EMBEDCACHE_ENCODER_BLOCKS_H
#define EMBEDCACHE_ENCODER_BLOCKS_H

#include <stdint.h>

namespace EC_ISA {

constexpr int64_t kInnerRows = 192;  /* tokens that go through the feed-forward part together */
constexpr int64_t kInnerWords = 768; /* of its second product's sum at once, so that operands stay in L2 */
constexpr int64_t kQueries = 48;     /* rows whose scores, of one head, stay in L2 */
constexpr int64_t kPad = 16;         /* words, so that rows do not all start in the same set of L1 */

}  // namespace EC_ISA

#endif
