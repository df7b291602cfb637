// A file that is cut short while it is mapped: the process would end by SIGBUS without a word. This says
// which file it was, in one line, and ends with status 1. For command lines alone; a program that embeds the
// package keeps its own handlers.
//
// A handler of Python's cannot do it: it runs after the instruction that fails, which never ends. All that is
// called here may be called in a signal handler (signal-safety(7)); there are no heap, no stdio and no locks.

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

constexpr size_t LINE = 8192;  // of /proc/self/maps: numbers, then a path of at most 4,096 bytes

// What is said, in one piece: lines of other threads may come before or after it, not in between. There is
// one handler at work (see below), so it can be static.
char message[LINE + 512];
size_t message_length = 0;

void add(const char* text) {
  while (*text != '\0' && message_length < sizeof message) message[message_length++] = *text++;
}

void say() {
  for (size_t done = 0; done < message_length;) {
    const ssize_t written = write(STDERR_FILENO, message + done, message_length - done);
    if (written <= 0) return;
    done += static_cast<size_t>(written);
  }
}

// Reads a number in hexadecimal digits and moves the pointer behind it.
uintptr_t number(const char*& text) {
  uintptr_t value = 0;
  for (;; ++text) {
    const char c = *text;
    if (c >= '0' && c <= '9')
      value = value * 16 + static_cast<uintptr_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      value = value * 16 + static_cast<uintptr_t>(c - 'a' + 10);
    else
      return value;
  }
}

// Adds the path of the file in a line "begin-end flags offset device inode   path", if it covers the address.
bool add_path(const char* line, uintptr_t address) {
  const char* at = line;
  const uintptr_t begin = number(at);
  if (*at++ != '-') return false;
  const uintptr_t end = number(at);
  if (address < begin || address >= end) return false;
  const char* path = strchr(at, '/');
  if (path == nullptr) return false;
  add(path);
  return true;
}

// Adds the path of the file that is mapped at the address, as the system knows it; false where it does not
// know.
bool add_mapped(uintptr_t address) {
  static char line[LINE];
  const int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (maps < 0) return false;
  char part[4096];
  size_t length = 0;
  bool found = false;
  for (ssize_t count; !found && (count = read(maps, part, sizeof part)) > 0;) {
    for (ssize_t i = 0; i < count && !found; ++i) {
      if (part[i] != '\n') {
        if (length < LINE - 1) line[length++] = part[i];
        continue;
      }
      line[length] = '\0';
      found = add_path(line, address);
      length = 0;
    }
  }
  close(maps);
  return found;
}

void on_bus_error(int, siginfo_t* info, void*) {
  // Threads that share the work fault together. The first one reports it; it ends the others, too.
  static std::atomic_flag reported = ATOMIC_FLAG_INIT;
  if (reported.test_and_set())
    for (;;) pause();
  if (isatty(STDERR_FILENO)) add("\r\033[K\033[?25h");  // a progress bar's line, and the cursor that it hides
  add("Error: ");
  if (!add_mapped(reinterpret_cast<uintptr_t>(info->si_addr))) add("a file that is being read");
  add(" was cut short by another program while it was read, or its disk does not answer: bring back a whole "
      "copy, "
      "then run the same command again\n");
  say();
  _exit(1);
}

}  // namespace

// Returns 0, or -1 where the system refuses.
extern "C" __attribute__((visibility("default"))) int ec_guard_install() {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  return sigaction(SIGBUS, &action, nullptr);
}
