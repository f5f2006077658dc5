// When a request waits for its reader.
#pragma once

#include <cstdint>

namespace catserve {

// A request is to stop once more than `tokens_max` of its tokens wait for the reader, and to go on
// once they are fewer than half of it: in between it stays as it is, so that a reader that is just
// quick enough does not start and stop it with every token.
class ReaderLag {
 public:
  enum class Change : uint8_t { kNone, kPause, kResume };

  // REQUIRES: tokens_max >= 1.
  explicit ReaderLag(int32_t tokens_max) : tokens_max_(tokens_max) {}

  // What to do now that `tokens` wait.
  Change Observe(int32_t tokens) {
    if (!paused_ && tokens > tokens_max_) {
      paused_ = true;
      return Change::kPause;
    }
    if (paused_ && 2 * int64_t{tokens} < tokens_max_) {
      paused_ = false;
      return Change::kResume;
    }
    return Change::kNone;
  }

 private:
  const int32_t tokens_max_;
  bool paused_ = false;
};

}  // namespace catserve
