/* What release/windows.py runs under Wine: loads the wheel's DLLs, and trains a probe on rows that a line
 * separates. */
#include <windows.h>

#include <cstdio>
#include <string>

#include "../csrc/heads/heads.h"

namespace {

HMODULE open(const std::string& path) {
  const HMODULE library = LoadLibraryA(path.c_str());
  if (!library) std::printf("%s does not load: error %lu\n", path.c_str(), GetLastError());
  return library;
}

template <class Function>
Function find(HMODULE library, const char* name) {
  return reinterpret_cast<Function>(reinterpret_cast<void*>(GetProcAddress(library, name)));
}

/* The validation accuracy of a head with 16 units after 20 epochs. */
double train(HMODULE library) {
  constexpr int kRows = 200, kDim = 8, kHidden = 16, kEpochs = 20;
  static float x[kRows * kDim], w1[kHidden * kDim], b1[kHidden], w2[2 * kHidden], b2[2];
  static int32_t y[kRows];
  static int64_t rows[kRows];
  unsigned state = 1;
  for (int i = 0; i < kRows; ++i) {
    rows[i] = i;
    y[i] = i % 2;
    for (int j = 0; j < kDim; ++j) {
      state = state * 1664525u + 1013904223u;
      x[i * kDim + j] = static_cast<float>(state >> 8) / (1 << 24) + (j == 0 ? 2.0f * y[i] : 0.0f);
    }
  }
  static double train_loss[kEpochs], val_loss[kEpochs], accuracy[kEpochs], f1[kEpochs];
  const ec_view view = {{x, kRows, kDim, kDim, EC_FLOAT32, nullptr}, y, nullptr, rows, kRows};
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
  return code == EC_OK ? accuracy[result.best_epoch] : -1;
}

}  // namespace

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  for (const char* name :
       {"encoder\\_encoder_cpu.dll", "encoder\\_tokenizer_cpu.dll", "finetune\\_block_cpu.dll"})
    if (!open(folder + "\\" + name)) return 1;
  const HMODULE heads = open(folder + "\\heads\\_heads_cpu.dll");
  if (!heads) return 1;
  const int32_t version = find<decltype(&ec_abi_version)>(heads, "ec_abi_version")();
  const double accuracy = train(heads);
  std::printf("4 DLLs load; %s, version %d, a head learned %.0f%%\n",
              find<decltype(&ec_backend)>(heads, "ec_backend")(), version, 100 * accuracy);
  return version == EC_ABI_VERSION && accuracy > 0.95 ? 0 : 1;
}
