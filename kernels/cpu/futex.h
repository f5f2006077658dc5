// Sleeping until a word of memory changes. Unlike std::atomic::wait, which gives its core away a
// few times before it sleeps: beside other load each of these times costs milliseconds.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace catserve::cpu {

// Sleeps while word == old, until woken; may also return without a cause.
inline void FutexWait(std::atomic<uint32_t>& word, uint32_t old) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
}

// Wakes at most `count` threads that sleep on the word.
inline void FutexWake(std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);

}  // namespace catserve::cpu
