// A value that one thread publishes and others read, none of them ever waiting.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace catserve {

// Two slots take turns: the writer fills the one that was not published last, so a reader that is
// interrupted costs the writer nothing, nor a writer that is interrupted the reader. Only a reader
// that two Publish calls overtook reads again.
template <typename T>
class Snapshot {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit Snapshot(const T& first) { Publish(first); }

  // One thread alone.
  void Publish(const T& value) {
    Words words{};
    std::memcpy(words.data(), &value, sizeof(T));
    const uint64_t turn = published_.load(std::memory_order_relaxed) + 1;
    started_.store(turn, std::memory_order_relaxed);
    for (size_t i = 0; i < words.size(); ++i) {
      // Release: who reads this word and then started_ finds this turn in it.
      slots_[turn % 2][i].store(words[i], std::memory_order_release);
    }
    published_.store(turn, std::memory_order_release);
  }

  // Any thread. The value published last, whole.
  T Read() const {
    Words words{};
    uint64_t turn = 0;
    do {
      turn = published_.load(std::memory_order_acquire);
      for (size_t i = 0; i < words.size(); ++i) {
        words[i] = slots_[turn % 2][i].load(std::memory_order_acquire);
      }
    } while (started_.load(std::memory_order_relaxed) >= turn + 2);
    T value;
    std::memcpy(static_cast<void*>(&value), words.data(), sizeof(T));
    return value;
  }

 private:
  static constexpr size_t kWords = (sizeof(T) + sizeof(uint64_t) - 1) / sizeof(uint64_t);
  using Words = std::array<uint64_t, kWords>;

  std::array<std::array<std::atomic<uint64_t>, kWords>, 2> slots_{};
  std::atomic<uint64_t> started_{0};
  std::atomic<uint64_t> published_{0};
};

}  // namespace catserve
