// A file that is cut short while it is mapped: the process would end by SIGBUS without a word. This says
// which file it was, in one line, and ends with status 1. For command lines alone; a program that embeds the
// package keeps its own handlers.
//
// A handler of Python's cannot do it: it runs after the instruction that fails, which never ends. All that is
// called here may be called in a signal handler (signal-safety(7)); there are no heap, no stdio and no locks.

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

constexpr size_t LINE = 8192;  // of /proc/self/maps: numbers, then a path of at most 4,096 bytes

void say(const char* text, size_t length) {
  while (length > 0) {
    const ssize_t written = write(STDERR_FILENO, text, length);
    if (written <= 0) return;
    text += written;
    length -= static_cast<size_t>(written);
  }
}

void say(const char* text) { say(text, strlen(text)); }

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

// Says the path of the file in a line "begin-end flags offset device inode   path", if it covers the address.
bool say_path(const char* line, uintptr_t address) {
  const char* at = line;
  const uintptr_t begin = number(at);
  if (*at++ != '-') return false;
  const uintptr_t end = number(at);
  if (address < begin || address >= end) return false;
  const char* path = strchr(at, '/');
  if (path == nullptr) return false;
  say(path);
  return true;
}

// Says the path of the file that is mapped at the address, as the system knows it; false where it does not
// say.
bool say_mapped(uintptr_t address) {
  static char line[LINE];  // a second fault, in another thread, ends the process as well
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
      found = say_path(line, address);
      length = 0;
    }
  }
  close(maps);
  return found;
}

void on_bus_error(int, siginfo_t* info, void*) {
  if (isatty(STDERR_FILENO)) say("\r\033[K\033[?25h");  // a progress bar's line, and the cursor that it hides
  say("Error: ");
  if (!say_mapped(reinterpret_cast<uintptr_t>(info->si_addr))) say("a file that is being read");
  say(" was cut short by another program while it was read, or its disk does not answer: bring back a whole "
      "copy, "
      "then run the same command again\n");
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
