/* Find out whether a text contains one of the added tokens, such as a written-out "[MASK]". */
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace ec {

class Added {
 public:
  explicit Added(const std::vector<std::string_view>& tokens) {
    for (const std::string_view token : tokens) {
      if (token.empty()) continue;
      tokens_.emplace_back(token);
      if (firsts_.find(token[0]) == std::string::npos) firsts_ += token[0];
    }
  }

  bool any(const uint8_t* text, size_t n) const {
    const auto* end = reinterpret_cast<const char*>(text) + n;
    for (const char first : firsts_)
      for (const auto* p = reinterpret_cast<const char*>(text); p < end; ++p) {
        p = static_cast<const char*>(std::memchr(p, first, size_t(end - p)));
        if (!p) break;
        for (const std::string& token : tokens_)
          if (token.size() <= size_t(end - p) && std::memcmp(p, token.data(), token.size()) == 0) return true;
      }
    return false;
  }

 private:
  std::vector<std::string> tokens_;
  std::string firsts_;
};

}  // namespace ec
