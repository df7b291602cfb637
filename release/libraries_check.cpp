/* What release/libraries.py runs where no Python is: loads a wheel's libraries, trains a head on rows that
 * one number of each separates, and compares the encoder's vectors with the same layer computed in doubles.
 */
#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "../csrc/encoder/encoder.h"
#include "../csrc/heads/heads.h"

namespace {

#ifdef _WIN32
using Library = HMODULE;
const std::string kEnding = ".dll";
const std::vector<std::string> kAlone = {"encoder/_tokenizer_cpu", "finetune/_block_cpu"};

Library open(const std::string& path) {
  const Library library = LoadLibraryA(path.c_str());
  if (!library) std::printf("%s does not load: error %lu\n", path.c_str(), GetLastError());
  return library;
}

void* symbol(Library library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(library, name));
}
#else
using Library = void*;
const std::string kEnding = ".so";
const std::vector<std::string> kAlone = {"encoder/_tokenizer_cpu", "finetune/_block_cpu",
                                         "common/_guard_cpu"};

Library open(const std::string& path) {
  const Library library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) std::printf("%s\n", dlerror());
  return library;
}

void* symbol(Library library, const char* name) { return dlsym(library, name); }
#endif

template <class Function>
Function find(Library library, const char* name) {
  return reinterpret_cast<Function>(symbol(library, name));
}

/* In [-1, 1), the same on every machine. */
float draw() {
  static unsigned state = 1;
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) / (1 << 23) - 1;
}

/* The validation accuracy of a head with 16 units after 20 epochs; -1: the engine refused. */
double train(Library library) {
  constexpr int kRows = 200, kDim = 8, kHidden = 16, kEpochs = 20;
  static float x[kRows * kDim], w1[kHidden * kDim], b1[kHidden], w2[2 * kHidden], b2[2];
  static int32_t y[kRows];
  static int64_t rows[kRows];
  for (int i = 0; i < kRows; ++i) {
    rows[i] = i;
    y[i] = i % 2;
    for (int j = 0; j < kDim; ++j) x[i * kDim + j] = draw() / 2 + (j == 0 ? 2.0f * y[i] : 0.0f);
  }
  static double train_loss[kEpochs], val_loss[kEpochs], accuracy[kEpochs], f1[kEpochs];
  const ec_view view = {{x, kRows, kDim, kDim, EC_FLOAT32, nullptr}, y, nullptr, rows, kRows, nullptr};
  ec_task task = {};
  task.train = task.val = view;
  task.outputs = 2;
  ec_head head = {};
  head.hidden = kHidden;
  head.lr = 0.01, head.beta1 = 0.9, head.beta2 = 0.999, head.eps = 1e-8, head.dropout = 0.1;
  ec_result result = {w1, b1, w2, b2, train_loss, val_loss, accuracy, f1, 0, 0, 0};
  ec_options options = {};
  options.batch_size = 32, options.epochs = kEpochs, options.threads = 2;
  const int32_t code = find<decltype(&ec_train)>(library, "ec_train")(&task, 1, &head, &result, 1, &options);
  return code == EC_OK && result.best_epoch >= 0 ? accuracy[result.best_epoch] : -1;
}

constexpr int kVocabulary = 50, kPositions = 16, kDim = 32, kInner = 64, kHeads = 2;
using Vector = std::vector<double>;

std::vector<float> drawn(size_t n, float scale, float around = 0) {
  std::vector<float> values(n);
  for (float& value : values) value = around + scale * draw();
  return values;
}

/* One BERT layer. */
struct Weights {
  struct Linear {
    std::vector<float> weight, bias;
    Linear(int out, int in) : weight(drawn(out * in, 0.3f)), bias(drawn(out, 0.3f)) {}
    operator ec_linear() const { return {weight.data(), bias.data()}; }
    Vector operator()(const Vector& x) const {
      Vector y(bias.begin(), bias.end());
      for (size_t i = 0; i < y.size(); ++i)
        for (size_t j = 0; j < x.size(); ++j) y[i] += double(weight[i * x.size() + j]) * x[j];
      return y;
    }
  };
  struct Norm {
    std::vector<float> weight = drawn(kDim, 0.3f, 1), bias = drawn(kDim, 0.3f);
    operator ec_norm() const { return {weight.data(), bias.data()}; }
    Vector operator()(Vector x, const Vector& more) const {
      double mean = 0, variance = 0;
      for (int i = 0; i < kDim; ++i) mean += (x[i] += more[i]) / kDim;
      for (double value : x) variance += (value - mean) * (value - mean) / kDim;
      for (int i = 0; i < kDim; ++i) x[i] = (x[i] - mean) / std::sqrt(variance + 1e-12) * weight[i] + bias[i];
      return x;
    }
  };
  std::vector<float> word = drawn(kVocabulary * kDim, 1), position = drawn(kPositions * kDim, 1);
  Norm norm, norm1, norm2;
  Linear query{kDim, kDim}, key{kDim, kDim}, value{kDim, kDim}, output{kDim, kDim}, up{kInner, kDim},
      down{kDim, kInner};
};

/* The vector of a row's first token. */
Vector expected(const Weights& w, const std::vector<int32_t>& ids) {
  std::vector<Vector> x;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto word = w.word.begin() + ids[i] * kDim, position = w.position.begin() + i * kDim;
    x.push_back(w.norm(Vector(word, word + kDim), Vector(position, position + kDim)));
  }
  const Vector query = w.query(x[0]);
  Vector mixed(kDim, 0);
  for (int head = 0; head < kHeads; ++head) {
    const int begin = head * kDim / kHeads, end = begin + kDim / kHeads;
    Vector share;
    double sum = 0;
    for (const Vector& row : x) {
      const Vector key = w.key(row);
      double score = 0;
      for (int i = begin; i < end; ++i) score += query[i] * key[i];
      sum += share.emplace_back(std::exp(score / std::sqrt(double(kDim) / kHeads)));
    }
    for (size_t j = 0; j < x.size(); ++j) {
      const Vector value = w.value(x[j]);
      for (int i = begin; i < end; ++i) mixed[i] += share[j] / sum * value[i];
    }
  }
  const Vector middle = w.norm1(x[0], w.output(mixed));
  Vector inner = w.up(middle);
  for (double& value : inner) value *= (1 + std::erf(value / std::sqrt(2.0))) / 2;
  return w.norm2(middle, w.down(inner));
}

/* The largest difference to doubles over rows of 1 to 16 tokens; -1: the encoder refused. */
double encode(Library library) {
  const Weights w;
  const ec_layer layer = {w.query, w.key, w.value, w.output, w.up, w.down, w.norm1, w.norm2, 0};
  ec_encoder_spec spec = {};
  spec.vocabulary = kVocabulary, spec.positions = kPositions, spec.width = spec.dim = kDim;
  spec.inner = kInner, spec.heads = kHeads, spec.layers = 1;
  spec.word = w.word.data(), spec.position = w.position.data(), spec.norm = w.norm, spec.layer = &layer;
  spec.epsilon = 1e-12f, spec.activation = EC_GELU, spec.compute = EC_ENCODE_FLOAT32;
  ec_encoder* const encoder = find<decltype(&ec_encoder_create)>(library, "ec_encoder_create")(&spec);
  if (!encoder) return -1;
  std::vector<std::vector<int32_t>> rows(kPositions);
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets = {0};
  for (int n = 0; n < kPositions; ++n) {
    for (int i = 0; i <= n; ++i) rows[n].push_back(static_cast<int32_t>((draw() + 1) / 2 * kVocabulary));
    ids.insert(ids.end(), rows[n].begin(), rows[n].end());
    offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  std::vector<float> found(kPositions * kDim);
  const ec_output output = {1, EC_POOL_CLS, found.data()};
  const int32_t code = find<decltype(&ec_encoder_run)>(library, "ec_encoder_run")(
      encoder, ids.data(), offsets.data(), kPositions, &output, 1);
  find<decltype(&ec_encoder_destroy)>(library, "ec_encoder_destroy")(encoder);
  double worst = code ? -1 : 0;
  for (int n = 0; n < kPositions && !code; ++n) {
    const Vector wanted = expected(w, rows[n]);
    for (int i = 0; i < kDim; ++i) worst = std::max(worst, std::abs(found[n * kDim + i] - wanted[i]));
  }
  return worst;
}

}  // namespace

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  for (const std::string& name : kAlone)
    if (!open(folder + "/" + name + kEnding)) return 1;
  const Library heads = open(folder + "/heads/_heads_cpu" + kEnding);
  const Library encoder = open(folder + "/encoder/_encoder_cpu" + kEnding);
  if (!heads || !encoder) return 1;
  const bool current =
      find<decltype(&ec_abi_version)>(heads, "ec_abi_version")() == EC_ABI_VERSION &&
      find<decltype(&ec_encoder_abi_version)>(encoder, "ec_encoder_abi_version")() == EC_ENCODER_ABI_VERSION;
  if (!current) return std::printf("the libraries are of another version than these sources\n"), 1;
  const double accuracy = train(heads), worst = encode(encoder);
  std::printf("%d libraries load; %s: a head learned %.0f%%; %s: vectors within %.0e of doubles\n",
              static_cast<int>(kAlone.size()) + 2, find<decltype(&ec_backend)>(heads, "ec_backend")(),
              100 * accuracy, find<decltype(&ec_encoder_backend)>(encoder, "ec_encoder_backend")(0), worst);
  return accuracy > 0.95 && worst >= 0 && worst < 1e-4 ? 0 : 1;
}
