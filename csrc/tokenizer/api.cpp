/* The C interface: checks the arguments, shares the texts among threads, cuts the rows, reports errors. */
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "added.h"
#include "byte_level.h"
#include "tokenizer.h"
#include "wordpiece.h"

namespace ec {

namespace {

thread_local std::string last_error;

std::vector<std::string_view> views(const ec_strings& strings) {
  std::vector<std::string_view> found;
  for (int64_t i = 0; i < strings.n; ++i)
    found.emplace_back(strings.bytes + strings.offsets[i],
                       size_t(strings.offsets[i + 1] - strings.offsets[i]));
  return found;
}

struct Scratch {
  std::unique_ptr<WordScratch> words;
  std::unique_ptr<ByteScratch> bytes;
  std::vector<int32_t> ids;
};

std::string wrong_spec(const ec_tokenizer_spec* s) {
  if (!s) return "no tokenizer";
  if (s->kind != EC_WORDPIECE && s->kind != EC_BYTE_LEVEL) return "no such kind";
  if (s->kind == EC_WORDPIECE && s->continuing.n != 1) return "one string stands before an inner piece";
  if (s->max_length <= s->n_before + s->n_after) return "no room for a token";
  for (int64_t i = 0; i < s->vocabulary.n; ++i)
    if (s->ids[i] < 0) return "a negative id";
  return "";
}

}  // namespace

class Tokenizer {
 public:
  explicit Tokenizer(const ec_tokenizer_spec& s)
      : before_(s.before, s.before + s.n_before),
        after_(s.after, s.after + s.n_after),
        most_(s.max_length),
        left_(s.left),
        added_(views(s.added)) {
    if (s.kind == EC_WORDPIECE)
      words_ = std::make_unique<WordPiece>(s, views(s.vocabulary));
    else
      bytes_ = std::make_unique<ByteLevel>(s, views(s.vocabulary), views(s.merges));
  }

  /* Where a text's row may begin: there is room for one id a byte. */
  int64_t slot(const ec_strings& texts, int64_t i) const {
    return texts.offsets[i] - texts.offsets[0] + i * int64_t(before_.size() + after_.size() + 1);
  }

  /* Writes rows into their slots; rows[i + 1] is the size of row i, until they are closed up. */
  void work(const ec_strings& texts, std::atomic<int64_t>& next, int32_t* ids, int64_t* rows,
            int64_t* lengths) {
    const std::unique_ptr<Scratch> scratch = take();
    for (int64_t begin; (begin = next.fetch_add(TEXTS)) < texts.n;)
      for (int64_t i = begin; i < std::min(begin + TEXTS, texts.n); ++i) {
        const int64_t room = slot(texts, i + 1) - slot(texts, i);
        rows[i + 1] = one(texts, i, *scratch, ids + slot(texts, i), room, lengths[i]);
      }
    give_back(*scratch);
  }

 private:
  static constexpr int64_t TEXTS = 16; /* that a thread takes at once */

  int64_t one(const ec_strings& texts, int64_t i, Scratch& scratch, int32_t* row, int64_t room,
              int64_t& length) const {
    const auto* text = reinterpret_cast<const uint8_t*>(texts.bytes) + texts.offsets[i];
    const size_t size = size_t(texts.offsets[i + 1] - texts.offsets[i]);
    auto& found = scratch.ids;
    found.clear();
    length = -1;
    if (added_.any(text, size)) return 0;
    if (!(words_ ? words_->run(text, size, *scratch.words, found)
                 : bytes_->run(text, size, *scratch.bytes, found)))
      return 0;
    const int64_t special = int64_t(before_.size() + after_.size());
    const int64_t n = int64_t(found.size()), kept = std::min(n, most_ - special);
    if (kept + special > room) return 0;
    length = n + special;
    const auto begin = left_ ? found.end() - kept : found.begin();
    row = std::copy(before_.begin(), before_.end(), row);
    row = std::copy(begin, begin + kept, row);
    std::copy(after_.begin(), after_.end(), row);
    return kept + special;
  }

  std::unique_ptr<Scratch> take() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!idle_.empty()) {
        auto scratch = std::make_unique<Scratch>(std::move(idle_.back()));
        idle_.pop_back();
        return scratch;
      }
    }
    auto scratch = std::make_unique<Scratch>();
    if (words_)
      scratch->words = std::make_unique<WordScratch>();
    else
      scratch->bytes = std::make_unique<ByteScratch>();
    return scratch;
  }

  void give_back(Scratch& scratch) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(scratch));
  }

  const std::vector<int32_t> before_, after_;
  const int64_t most_;
  const bool left_;
  const Added added_;
  std::unique_ptr<const WordPiece> words_;
  std::unique_ptr<const ByteLevel> bytes_;
  std::mutex mutex_;
  std::vector<Scratch> idle_;
};

}  // namespace ec

struct ec_tokenizer {
  ec::Tokenizer tokenizer;
};

#pragma GCC visibility push(default)
extern "C" {

int32_t ec_tokenizer_abi_version(void) { return EC_TOKENIZER_ABI_VERSION; }
const char* ec_tokenizer_last_error(void) { return ec::last_error.c_str(); }

ec_tokenizer* ec_tokenizer_create(const ec_tokenizer_spec* spec) try {
  ec::last_error = ec::wrong_spec(spec);
  if (!ec::last_error.empty()) return nullptr;
  return new ec_tokenizer{ec::Tokenizer(*spec)};
} catch (const std::exception& error) {
  ec::last_error = error.what();
  return nullptr;
}

void ec_tokenizer_destroy(ec_tokenizer* tokenizer) { delete tokenizer; }

int32_t ec_tokenizer_run(const ec_tokenizer* tokenizer, const ec_strings* texts, int32_t threads,
                         int32_t* ids, int64_t* rows, int64_t* lengths) try {
  ec::Tokenizer& it =
      const_cast<ec_tokenizer*>(tokenizer)->tokenizer; /* its idle memory changes, under a lock */
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    try {
      it.work(*texts, next, ids, rows, lengths);
    } catch (const std::exception&) {
      failed = true;
    }
  };
  std::vector<std::thread> others;
  try {
    for (int32_t i = 1; i < threads; ++i) others.emplace_back(work);
  } catch (const std::exception&) { /* no more threads than these */
  }
  work();
  for (std::thread& other : others) other.join();
  ec::last_error = "not enough memory for the tokens";
  if (failed) return 1;
  rows[0] = 0;
  for (int64_t i = 0; i < texts->n; ++i) { /* closed up: a row never moves to the right */
    const int32_t* from = ids + it.slot(*texts, i);
    const int64_t size = rows[i + 1];
    std::copy(from, from + size, ids + rows[i]);
    rows[i + 1] = rows[i] + size;
  }
  return 0;
} catch (const std::exception& error) {
  ec::last_error = error.what();
  return 1;
}

}  // extern "C"
#pragma GCC visibility pop
