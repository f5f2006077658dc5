// One stack that waits while another runs. A context is entered by setcontext and from then on
// changed by _longjmp, which makes no call of the system. AddressSanitizer is told of every switch,
// and knows swapcontext alone: it keeps books on the stack that it believes in.
#pragma once

#include <ucontext.h>

#include <csetjmp>
#include <cstddef>
#include <span>

#if defined(__SANITIZE_ADDRESS__)
#define CATSERVE_FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CATSERVE_FIBER_ASAN 1
#endif
#endif
#ifdef CATSERVE_FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace catserve::cuda::emulator {

// Not copyable, and must not move while it waits: the context may point into itself.
class FiberContext {
 public:
  FiberContext() = default;
  FiberContext(const FiberContext&) = delete;
  FiberContext& operator=(const FiberContext&) = delete;

  // The next ResumeFrom calls entry() on `stack`. entry must call Entered() first, and must not
  // return.
  void Prepare(std::span<char> stack, void (*entry)()) {
    stack_ = stack;
    entered_ = false;
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack.data();
    context_.uc_stack.ss_size = stack.size();
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }

  void ResumeFrom(FiberContext& caller) { Switch(caller, *this, &caller.shadow_); }
  void SuspendTo(FiberContext& caller) { Switch(*this, caller, &shadow_); }

#ifdef CATSERVE_FIBER_ASAN
  static void Entered() { FinishSwitch(nullptr); }

 private:
  static void FinishSwitch(void* shadow) {
    const void* bottom = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(shadow, &bottom, &bytes);
    if (last_ != nullptr && last_->stack_.empty()) {  // the thread's own stack: learned once
      last_->stack_ = {static_cast<char*>(const_cast<void*>(bottom)), bytes};
    }
  }
  static void Switch(FiberContext& from, FiberContext& to, void** shadow) {
    last_ = &from;
    __sanitizer_start_switch_fiber(shadow, to.stack_.data(), to.stack_.size());
    swapcontext(&from.context_, &to.context_);
    FinishSwitch(from.shadow_);
  }
  static inline thread_local FiberContext* last_ = nullptr;
#else
  static void Entered() {}

 private:
  static void Switch(FiberContext& from, FiberContext& to, void** /*shadow*/) {
    from.entered_ = true;
    if (_setjmp(from.place_) != 0) return;  // resumed
    if (to.entered_) _longjmp(to.place_, 1);
    setcontext(&to.context_);
  }
  std::jmp_buf place_;
#endif

  ucontext_t context_;
  std::span<char> stack_;
  bool entered_ = false;
  void* shadow_ = nullptr;
};

}  // namespace catserve::cuda::emulator
