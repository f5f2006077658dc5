// One stack that waits while another runs. AddressSanitizer is told of every switch: it keeps books
// on the stack that it believes in.
#pragma once

#include <ucontext.h>

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

  // The next ResumeFrom calls entry() on `stack`. entry must call Entered() first, and LeaveTo()
  // instead of returning.
  void Prepare(std::span<char> stack, void (*entry)()) {
    stack_ = stack;
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack.data();
    context_.uc_stack.ss_size = stack.size();
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }

  void ResumeFrom(FiberContext& caller) { Switch(caller, *this, &caller.shadow_); }
  void SuspendTo(FiberContext& caller) { Switch(*this, caller, &shadow_); }
  void LeaveTo(FiberContext& caller) { Switch(*this, caller, nullptr); }

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
    swapcontext(&from.context_, &to.context_);
  }
#endif

  ucontext_t context_;
  std::span<char> stack_;
  void* shadow_ = nullptr;
};

}  // namespace catserve::cuda::emulator
