#include "kernels/cuda/emulator/emulator.h"

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "kernels/check.h"
#include "kernels/cuda/emulator/fiber_switch.h"

namespace catserve::cuda::emulator {
namespace {

constexpr uint32_t kNobody = ~0u;
constexpr size_t kStackBytes = size_t{96} * 1024;

enum class State : uint8_t { kReady, kAtBlockBarrier, kAtWarpCollective, kReturned };

struct Fiber {
  FiberContext context;
  std::unique_ptr<char[]> stack;
  State state = State::kReady;
  Place place;  // of the collective it waits at
};

// A collective of a warp. What lanes give alternates between two sets of slots: a lane that is
// through may give to the next collective while others still read from this one.
struct Warp {
  uint32_t arrived = 0;
  uint32_t generation = 0;
  size_t bytes = 0;
  Place place;
  std::array<std::array<LaneValue, kWarpThreads>, 2> given;
};

bool Same(const Place& a, const Place& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

class Machine {
 public:
  Machine(const LaunchShape& shape, uint32_t seed, const std::function<void()>& thread)
      : shape_(shape),
        seed_(seed),
        thread_(thread),
        random_(seed),
        fibers_(Fibers(shape.threads)) {}

  void RunBlock(uint32_t x, uint32_t y);

  // -- Called on a fiber.
  void WaitForBlock(Place place);
  std::span<const LaneValue, kWarpThreads> Exchange(const void* value, size_t bytes, Place place);
  void* Shared(size_t bytes, Place place);
  const ThreadIndex& index() const { return index_; }
  const LaunchShape& shape() const { return shape_; }

 private:
  static std::span<const std::unique_ptr<Fiber>> Fibers(uint32_t count);
  static void Enter();  // where a fiber begins
  void RunRound();
  void HoldBack(std::vector<uint32_t>& ready);
  void Yield(State state, Place place);
  Fiber& running() { return *fibers_[index_.thread]; }
  bool Waiting(State state) const;
  [[noreturn]] void ReportDeadlock();

  LaunchShape shape_;
  uint32_t seed_;
  const std::function<void()>& thread_;
  std::mt19937 random_;
  std::span<const std::unique_ptr<Fiber>> fibers_;
  std::vector<Warp> warps_;
  FiberContext scheduler_;
  ThreadIndex index_;
  uint32_t ahead_ = kNobody;  // the warp that runs in any case; chosen anew after a barrier
  uint32_t at_barrier_ = 0;
  Place barrier_;
  uint32_t returned_ = 0;
  size_t shared_bytes_ = 0;
  alignas(16) std::array<std::byte, kSharedBytesMax> shared_;
};

thread_local Machine* machine = nullptr;

void Machine::RunBlock(uint32_t x, uint32_t y) {
  index_ = {0, x, y};
  warps_.assign(shape_.threads / kWarpThreads, {});
  at_barrier_ = returned_ = 0;
  ahead_ = kNobody;
  shared_bytes_ = 0;
  shared_.fill(std::byte{0xff});
  for (const auto& fiber : fibers_) fiber->state = State::kReady;
  while (returned_ < shape_.threads) RunRound();
}

// Lets ready threads run to their next collective: with a seed in random order, and not of every
// warp, so that warps drift apart as they do on a device.
void Machine::RunRound() {
  std::vector<uint32_t> ready;
  for (uint32_t t = 0; t < fibers_.size(); ++t) {
    if (fibers_[t]->state == State::kReady) ready.push_back(t);
  }
  if (ready.empty()) ReportDeadlock();
  if (seed_ != 0) {
    std::shuffle(ready.begin(), ready.end(), random_);
    HoldBack(ready);
  }
  for (const uint32_t t : ready) {
    index_.thread = t;
    fibers_[t]->context.ResumeFrom(scheduler_);
  }
}

// Odd seeds: one warp runs ahead until it waits for the block, then another. Even seeds: about half
// of the warps rest. `ready` does not become empty.
void Machine::HoldBack(std::vector<uint32_t>& ready) {
  const auto warp_of = [](uint32_t t) { return t / kWarpThreads; };
  const bool one_ahead = seed_ % 2 == 1;
  const auto goes_on = [&](uint32_t t) { return warp_of(t) == ahead_; };
  if (!one_ahead || std::none_of(ready.begin(), ready.end(), goes_on)) {
    ahead_ = warp_of(ready.front());
  }
  const uint32_t resting = one_ahead ? ~0u : static_cast<uint32_t>(random_());
  std::erase_if(ready, [&](uint32_t t) {
    return warp_of(t) != ahead_ && (resting >> warp_of(t) % 32 & 1) != 0;
  });
}

// Kept from launch to launch: stacks are dear to make, and a fiber whose thread has returned goes
// on with another.
std::span<const std::unique_ptr<Fiber>> Machine::Fibers(uint32_t count) {
  static thread_local std::vector<std::unique_ptr<Fiber>> fibers;
  while (fibers.size() < count) {
    fibers.push_back(std::make_unique<Fiber>());
    fibers.back()->stack = std::make_unique_for_overwrite<char[]>(kStackBytes);
    fibers.back()->context.Prepare({fibers.back()->stack.get(), kStackBytes}, &Machine::Enter);
  }
  return std::span(fibers).first(count);
}

void Machine::Enter() {
  FiberContext::Entered();
  for (;;) {
    machine->thread_();
    ++machine->returned_;
    machine->Yield(State::kReturned, {});
  }
}

void Machine::Yield(State state, Place place) {
  Fiber& fiber = running();
  fiber.state = state;
  fiber.place = place;
  fiber.context.SuspendTo(scheduler_);
}

void Machine::WaitForBlock(Place place) {
  if (returned_ > 0) Die("a block barrier after a thread of the block has returned", place);
  if (at_barrier_ == 0) barrier_ = place;
  if (!Same(barrier_, place)) Die("threads of a block meet different barriers", place);
  if (++at_barrier_ < shape_.threads) return Yield(State::kAtBlockBarrier, place);
  at_barrier_ = 0;
  ahead_ = kNobody;
  for (const auto& fiber : fibers_) fiber->state = State::kReady;
}

std::span<const LaneValue, kWarpThreads> Machine::Exchange(const void* value, size_t bytes,
                                                           Place place) {
  const uint32_t first = index_.thread / kWarpThreads * kWarpThreads;
  Warp& warp = warps_[first / kWarpThreads];
  if (warp.arrived == 0) {
    warp.place = place;
    warp.bytes = bytes;
  }
  if (!Same(warp.place, place) || warp.bytes != bytes) {
    Die("lanes of a warp meet different collectives", place);
  }
  auto& given = warp.given[warp.generation % 2];
  std::memcpy(given[index_.thread - first].bytes, value, bytes);
  if (++warp.arrived < kWarpThreads) {
    Yield(State::kAtWarpCollective, place);
  } else {
    warp.arrived = 0;
    ++warp.generation;
    for (uint32_t t = first; t < first + kWarpThreads; ++t) fibers_[t]->state = State::kReady;
  }
  return given;
}

void* Machine::Shared(size_t bytes, Place place) {
  if (shared_bytes_ == 0) shared_bytes_ = bytes;
  if (shared_bytes_ != bytes) Die("a kernel has one shared structure, not two", place);
  return shared_.data();
}

bool Machine::Waiting(State state) const {
  return std::any_of(fibers_.begin(), fibers_.end(),
                     [&](const auto& fiber) { return fiber->state == state; });
}

void Machine::ReportDeadlock() {
  for (uint32_t t = 0; t < fibers_.size(); ++t) {
    const Fiber& fiber = *fibers_[t];
    if (fiber.state == State::kReturned) continue;
    index_.thread = t;
    if (returned_ > 0) Die("waits for threads that have returned", fiber.place);
    if (Waiting(State::kAtBlockBarrier) && Waiting(State::kAtWarpCollective)) {
      Die("some threads wait for their warp, others for the block", fiber.place);
    }
    Die("waits for lanes that never come", fiber.place);
  }
  std::abort();  // not reached: a block without waiting threads has ended
}

}  // namespace

void Launch(const LaunchShape& shape, uint32_t seed, const std::function<void()>& thread) {
  CATSERVE_CHECK(shape.threads > 0 && shape.threads <= 1024 && shape.threads % kWarpThreads == 0)
      << "a block of " << shape.threads << " threads; make it whole warps, at most 1,024";
  CATSERVE_CHECK(machine == nullptr) << "a kernel cannot launch another";
  // On the heap: a thread's own stack need not have room for a block's shared memory.
  const auto block = std::make_unique<Machine>(shape, seed, thread);
  machine = block.get();
  for (uint32_t y = 0; y < shape.blocks_y; ++y) {
    for (uint32_t x = 0; x < shape.blocks_x; ++x) block->RunBlock(x, y);
  }
  machine = nullptr;
}

const ThreadIndex& Index() { return machine->index(); }
const LaunchShape& Shape() { return machine->shape(); }
void SyncBlock(Place place) { machine->WaitForBlock(place); }

std::span<const LaneValue, kWarpThreads> ExchangeInWarp(const void* value, size_t bytes,
                                                        Place place) {
  return machine->Exchange(value, bytes, place);
}

void* SharedMemory(size_t bytes, Place place) { return machine->Shared(bytes, place); }

void Die(const char* what, Place place) {
  const ThreadIndex& index = machine->index();
  std::fprintf(stderr, "emulator: %s:%d: thread %u of block (%u, %u): %s\n", place.file, place.line,
               index.thread, index.block_x, index.block_y, what);
  std::fflush(stderr);
  std::abort();
}

}  // namespace catserve::cuda::emulator
