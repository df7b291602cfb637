/* The tasks' data on the device: each array once, however many tasks share it. */
#ifndef EMBEDCACHE_CUDA_DATA_CUH
#define EMBEDCACHE_CUDA_DATA_CUH

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#ifdef EC_HOST_EMULATION
#include "device_emulation.h"
#else
#include "device.cuh"
#endif
#include "prepare.cuh"

namespace ec {

template <class T>
Buffer<T> copy_of(const Device& device, const std::vector<T>& values, const char* what) {
  Buffer<T> buffer((int64_t)values.size(), what);
  device.copy(buffer.get(), values.data(), (int64_t)(values.size() * sizeof(T)));
  return buffer;
}

/* How x is prepared: for the kernels in TF32, for clusters in bfloat16, for large batches in bfloat16; for
 * clusters and stacked products in float32, which have it where others have it in TF32; for probes, the same
 * numbers. */
enum class Form { kReady, kWide, kLines, kPlain, kProbes };

inline bool is_rounded(Form form) { return form != Form::kPlain && form != Form::kProbes; }

class Data {
 public:
  Data(const Device& device, const ec_task* tasks, int n_tasks) : device_(device) {
    for (int i = 0; i < n_tasks; ++i) {
      const ec_task& task = tasks[i];
      const int64_t dim = task.train.x.dim;
      tasks_.push_back({view(task.train, task.outputs), view(task.val, task.outputs), (int32_t)dim,
                        task.outputs, task.kind, array(task.mean, dim), array(task.inv_std, dim),
                        array(task.class_weight, task.outputs)});
    }
    on_device_ = Buffer<Task>(n_tasks, "the tasks");
    copy_tasks();
  }

  /* Makes x of task i's training rows as some kernels read it, if it takes no more than half of the memory
   * that is left and can be had: without it the task's heads are trained by the plain kernels. */
  bool prepare(int i, const ec_task& task, Form form) {
    Task& t = tasks_[(size_t)i];
    return prepare(t, t.train, task.train.x.rows, form);
  }

  /* The same for what validates. */
  bool prepare_validation(int i, const ec_task& task, Form form) {
    Task& t = tasks_[(size_t)i];
    return prepare(t, t.val, task.val.x.rows, form);
  }

  const Task& task(int i) const { return tasks_[(size_t)i]; } /* with device pointers */
  const Task* on_device() const { return on_device_.get(); }

 private:
  bool prepare(const Task& t, View& view, int64_t rows, Form form) {
    const int64_t stride = ready_stride(t.dim);
    bool done;
    if (form == Form::kWide) {
      done = prepare<PrepareWide>(t, view, rows, wide_stride(t.dim), wide_, &Launch::wide, &View::wide);
    } else if (form == Form::kLines) {
      done = prepare<PrepareLines>(t, view, rows, stride, lines_, &Launch::lines, &View::lines);
    } else if (form == Form::kPlain || form == Form::kProbes) {
      done = prepare<PreparePlain>(t, view, rows, stride, plain_, &Launch::ready, &View::plain);
      if (form == Form::kPlain) view.ready = view.plain;
    } else {
      done = prepare<Prepare>(t, view, rows, stride, ready_, &Launch::ready, &View::ready);
    }
    copy_tasks();
    return done;
  }

  void copy_tasks() const {
    device_.copy(on_device_.get(), tasks_.data(), (int64_t)(tasks_.size() * sizeof(Task)));
    device_.synchronize();
  }

  template <class T>
  using Made =
      std::map<std::tuple<const void*, const float*, const float*>, Buffer<T>>; /* by x, mean, inv_std */

  template <class Kernel, class T>
  bool prepare(const Task& task, View& view, int64_t rows, int64_t stride, Made<T>& all, T* Launch::* to,
               const T* View::* found) {
    if (view.n == 0) return true;
    const auto key = std::make_tuple(view.x, task.mean, task.inv_std);
    auto at = all.find(key);
    if (at == all.end()) {
      const int64_t size = rows * stride;
      if (rows > UINT32_MAX || size * (int64_t)sizeof(T) > free_memory() / 2) return false;
      Buffer<T> made = try_buffer<T>(size);
      if (!made.get()) return false;
      Launch launch = {};
      launch.source = {view.x, nullptr, task.mean, task.inv_std, task.dim, view.dtype};
      launch.source_rows = rows;
      launch.*to = made.get();
      device_.launch<Kernel>(launch, (int)std::min(rows, (int64_t)device_.resident_blocks<Kernel>()));
      at = all.emplace(key, std::move(made)).first;
    }
    view.*found = at->second.get();
    return true;
  }

  /* Empty where the memory that is said to be free cannot be had: it is in pieces, or another process was
   * faster. */
  template <class T>
  static Buffer<T> try_buffer(int64_t size) {
    try {
      return Buffer<T>(size, "X as the tensor cores read it");
    } catch (const Error& error) {
      if (error.code != EC_ERROR_MEMORY) throw;
      return {};
    }
  }

  using Key =
      std::tuple<const void*, int64_t, int64_t, int64_t>; /* address, rows, bytes a row, bytes between rows */

  const void* upload(const void* host, int64_t rows, int64_t row_bytes, int64_t pitch, const char* what) {
    const auto [at, is_new] = buffers_.try_emplace(Key{host, rows, row_bytes, pitch});
    if (is_new) {
      at->second = Buffer<char>(rows * row_bytes, what);
      copy(at->second.get(), static_cast<const char*>(host), rows, row_bytes, pitch);
    }
    return at->second.get();
  }

  /* int8 rows as float32: the kernels read no int8, and the products of values and scales are exact. */
  const void* upload_widened(const ec_matrix& x) {
    const auto [at, is_new] = buffers_.try_emplace(Key{x.data, x.rows, x.dim, x.stride});
    if (!is_new) return at->second.get();
    const int64_t row_bytes = x.dim * (int64_t)sizeof(float);
    at->second = Buffer<char>(x.rows * row_bytes, "X, int8 as float32,");
    const int64_t step = std::max<int64_t>(1, (int64_t{1} << 22) / x.dim); /* rows at a time */
    std::vector<float> wide((size_t)(std::min(step, x.rows) * x.dim));
    for (int64_t first = 0; first < x.rows; first += step) {
      const int64_t n = std::min(step, x.rows - first);
      for (int64_t i = 0; i < n; ++i) {
        const int8_t* from = static_cast<const int8_t*>(x.data) + (first + i) * x.stride;
        const float scale = x.scale[first + i];
        for (int64_t j = 0; j < x.dim; ++j) wide[(size_t)(i * x.dim + j)] = (float)from[j] * scale;
      }
      device_.upload(at->second.get() + first * row_bytes, wide.data(), n, row_bytes, row_bytes);
    }
    return at->second.get();
  }

  void copy(char* to, const char* from, int64_t rows, int64_t row_bytes, int64_t pitch) const {
    if (pitch >= row_bytes) {
      device_.upload(to, from, rows, row_bytes, pitch);
    } else { /* rows that overlap, or are all the same one */
      for (int64_t i = 0; i < rows; ++i) device_.copy(to + i * row_bytes, from + i * pitch, row_bytes);
    }
  }

  template <class T>
  const T* array(const T* host, int64_t n) {
    const int64_t bytes = n * (int64_t)sizeof(T);
    return host ? static_cast<const T*>(upload(host, 1, bytes, bytes, "labels and row numbers")) : nullptr;
  }

  View view(const ec_view& v, int64_t outputs) {
    if (v.n == 0)
      return {nullptr, nullptr, nullptr, nullptr, nullptr, 0, EC_FLOAT32, nullptr, nullptr, nullptr, nullptr};
    const int64_t size = ec_size_of(v.x.dtype);
    const bool widened = v.x.dtype == EC_SCALED_INT8;
    const void* x =
        widened ? upload_widened(v.x) : upload(v.x.data, v.x.rows, v.x.dim * size, v.x.stride * size, "X");
    return {x,
            array(v.y, v.x.rows),
            array(v.targets, v.x.rows * outputs),
            array(v.rows, v.n),
            array(v.sample_weight, v.x.rows),
            (uint32_t)v.n,
            widened ? EC_FLOAT32 : v.x.dtype,
            nullptr,
            nullptr,
            nullptr,
            nullptr};
  }

  const Device& device_;
  std::map<Key, Buffer<char>> buffers_;
  Made<float> ready_, plain_;
  Made<uint16_t> wide_, lines_;
  std::vector<Task> tasks_;
  Buffer<Task> on_device_;
};

}  // namespace ec
#endif
