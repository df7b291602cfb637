/* Large copies through pinned slots, with fake_cuda in CUDA's place: random transfers there and back. Prints
 * what is wrong. */
#include <cstdio>
#include <random>

#include "../../csrc/heads/cuda/staging.cuh"

using ec::Staging;
using ec::Transfer;

static std::minstd_rand random_numbers(1);

static int64_t draw(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_numbers);
}

struct Host {
  std::vector<char> memory;
  Transfer transfer;
};

static bool same(const std::vector<Host>& hosts, const std::vector<std::vector<char>>& others) {
  for (size_t k = 0; k < hosts.size(); ++k)
    for (int64_t row = 0; row < hosts[k].transfer.rows; ++row)
      if (memcmp(hosts[k].memory.data() + row * hosts[k].transfer.pitch,
                 others[k].data() + row * hosts[k].transfer.pitch, (size_t)hosts[k].transfer.bytes) != 0)
        return false;
  return true;
}

/* Few long rows, or many short ones; dense or apart; beside each other on the device, or not. */
static const char* round_trip(bool is_long) {
  std::vector<Host> hosts((size_t)draw(1, 4));
  std::vector<char> device(64 << 20);
  char* at = device.data();
  for (Host& host : hosts) {
    Transfer& t = host.transfer;
    t.rows = is_long ? draw(1, 2) : draw(1, 400);
    t.bytes = is_long ? draw(1, 5 << 20) : draw(1, 9000);
    t.pitch = t.bytes + (draw(0, 1) ? draw(0, 99) : 0);
    t.device = at;
    at += t.rows * t.bytes + (draw(0, 1) ? 64 : 0);
    host.memory.resize((size_t)(t.rows * t.pitch));
    for (char& byte : host.memory) byte = (char)random_numbers();
    t.host = host.memory.data();
  }
  std::vector<Transfer> transfers;
  std::vector<std::vector<char>> before;
  for (const Host& host : hosts) {
    transfers.push_back(host.transfer);
    before.push_back(host.memory);
  }
  if (!Staging::copy(0, nullptr, transfers, true)) return "nothing was copied to the device";
  for (const Transfer& t : transfers)
    for (int64_t row = 0; row < t.rows; ++row)
      if (memcmp(t.host + row * t.pitch, t.device + row * t.bytes, (size_t)t.bytes) != 0)
        return "other bytes on the device";
  for (Host& host : hosts) std::fill(host.memory.begin(), host.memory.end(), (char)0);
  if (!Staging::copy(0, nullptr, transfers, false)) return "nothing was copied to the host";
  return same(hosts, before) ? nullptr : "other bytes on the host";
}

int main() {
  for (int trial = 0; trial < 12; ++trial)
    if (const char* wrong = round_trip(trial % 2)) {
      std::printf("trial %d: %s\n", trial, wrong);
      return 1;
    }
  return 0;
}
