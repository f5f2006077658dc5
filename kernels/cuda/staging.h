// How work reaches the device and small things cross the bus. Lists that operations are given go up
// through one pinned arena, results come down through another; both are taken at start, and used
// from front to back until a step ends. What is pinned is there twice: the host gives a step, and
// takes the results of the one before, while the device has that to do.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/part_graphs.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/task.h"

namespace catserve::cuda {

// Steps whose lists and results there is room for: one that the device has to do, and the next. Who
// ends more waits for the oldest.
inline constexpr int kStepsAtOnce = 2;

// Lists that go up in one copy, each aligned for any load of a kernel.
class Packet {
 public:
  // Returns where the list will lie, in bytes from what WorkQueue::Send returns.
  // room: for how many of them, if more than there are.
  template <typename T>
  int64_t Add(std::span<const T> list, int64_t room = 0) {
    const int64_t at = (size() + kAlignment - 1) / kAlignment * kAlignment;
    const auto items = std::max(list.size(), static_cast<size_t>(room));
    bytes_.resize(static_cast<size_t>(at) + items * sizeof(T));
    if (!list.empty()) std::memcpy(bytes_.data() + at, list.data(), list.size_bytes());
    return at;
  }
  template <typename T>
  int64_t Add(const std::vector<T>& list, int64_t room = 0) {
    return Add(std::span<const T>(list), room);
  }

  bool operator==(const Packet& other) const = default;
  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }
  const std::byte* data() const { return bytes_.data(); }

  static constexpr int64_t kAlignment = 16;

 private:
  std::vector<std::byte> bytes_;
};

// A list of a packet that lies at `base` on the device.
template <typename T>
const T* ListAt(const std::byte* base, int64_t at) {
  return reinterpret_cast<const T*>(base + at);
}

// What the device is given: work, and lists for it. Both wait until Submit, so that the lists of a
// whole step go up in one copy before its work starts, in the order in which it came. Parts of a
// step that recur may be replayed (part_graphs.h): for that their lists lie where those of their
// equals lay, if their lengths are what the part's rows make them. Not thread-safe.
class WorkQueue {
 public:
  // REQUIRES: runtime outlives it. Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<WorkQueue>> Create(Runtime& runtime, int64_t bytes);
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  // What follows, up to the next part, copy or Submit, is a part of a step.
  void BeginPart(const StepPart& part);
  void EndPart();
  // A list of n items, or a launch for them, has room for so many: those of the part's rows, and
  // where that is not enough a power of two, so that few lengths occur.
  int64_t RoomFor(int64_t n) const;

  // Puts kLaunch(args..., stream) at the end of what waits.
  template <auto kLaunch, typename... Args>
  void Do(Args... args) {
    Add(MakeTask<kLaunch>(std::move(args)...));
  }

  // Where the packet will lie on the device for whatever the queue is given next, until the arena
  // wraps. REQUIRES: packets in use together were announced by MakeRoom.
  const std::byte* Send(const Packet& packet);
  // The same for lists whose length says nothing about the part: as an offset from `lists`, and
  // other from step to step.
  int64_t SendApart(const Packet& packet);
  const std::byte* lists() const { return device_; }

  // After it packets of so many bytes together, `packets` of them, are sent without a wrap. A wrap
  // submits and waits for the device. Aborts if they are more than the arena.
  void MakeRoom(int64_t bytes, int packets);

  // Copies between host and device memory or within it, in order with the work. CopyIn: host
  // memory, however large, that may change after the call.
  void Copy(void* to, const void* from, int64_t bytes);
  void CopyIn(void* to, const void* from, int64_t bytes);

  void Submit();
  // Submits, and waits until all of it is done.
  void Synchronize();
  // Submits; what is sent from here on belongs to the next step. Returns a mark of all given so
  // far. On the device that step's lists take the place of this one's, in order with the work: each
  // step finds its own at the same addresses.
  int64_t EndStep();

  // Everything sent so far has been used. REQUIRES: nothing waits.
  void Reset();
  // Grows when packets sent before are gone, or belong to another part.
  int64_t generation() const { return generation_; }

  // To be called when memory of the device was freed: recorded work may use it.
  void ForgetGraphs() { graphs_.Forget(); }
  PartCounts part_counts() const { return graphs_.counts(); }

 private:
  // Of the arena, for lists of parts that recur; the rest is used from front to back.
  struct Place {
    int64_t used = 0;
    int64_t end = 0;
  };
  static constexpr int kCompressorPlaces = 8;  // by chunk size
  static constexpr int kOutputPlace = kCompressorPlaces;
  static constexpr int kDecoderPlace = kOutputPlace + 1;
  static constexpr int kPlaces = kDecoderPlace + 1;

  struct Part {
    StepPart key;
    Tasks tasks;
  };

  WorkQueue(Runtime& runtime, int64_t bytes) : runtime_(runtime), bytes_(bytes), graphs_(runtime) {
    Reset();
  }
  static int PlaceOf(const StepPart& part);
  bool in_part() const { return !waiting_.empty() && waiting_.back().key.kind != PartKind::kOther; }
  // Submits what is more than any step has.
  void Add(std::unique_ptr<Task> task);
  // Puts bytes where the device does not read any more.
  void Write(int64_t at, const void* from, int64_t bytes);
  // Takes the bytes into the arena; returns where.
  int64_t Stage(const void* from, int64_t bytes);
  std::byte* pinned() const { return pinned_ + step_ * bytes_; }  // of the present step

  Runtime& runtime_;
  const int64_t bytes_;                                          // of a step
  std::byte* pinned_ = nullptr;                                  // [kStepsAtOnce][bytes_]
  std::byte* device_ = nullptr;                                  // [bytes_]
  int step_ = 0;                                                 // below kStepsAtOnce, in turn
  std::array<std::optional<int64_t>, kStepsAtOnce> read_until_;  // marks: the device reads pinned_
  int64_t used_ = 0;
  int64_t sent_ = 0;  // of them, to the device
  int64_t generation_ = 0;
  std::array<Place, kPlaces> places_;
  int64_t first_unsent_ = 0;  // of the places' bytes; bytes_: there is none
  std::vector<Part> waiting_;
  size_t waiting_tasks_ = 0;
  PartGraphs graphs_;
};

// Results that the host takes over when the device, or their step, has been waited for. Not
// thread-safe.
class DownloadArena {
 public:
  // REQUIRES: both outlive it. Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<DownloadArena>> Create(Runtime& runtime, WorkQueue& work,
                                                               int64_t bytes);
  ~DownloadArena();
  DownloadArena(const DownloadArena&) = delete;
  DownloadArena& operator=(const DownloadArena&) = delete;

  // Copies `count` numbers from the device; they may be read in a function given to Then.
  template <typename T>
  const T* Fetch(const T* device, int64_t count) {
    return reinterpret_cast<const T*>(Fetch(static_cast<const void*>(device), count * sizeof(T)));
  }
  void Then(std::function<void()> take) { Open().takers.push_back(std::move(take)); }

  // Fetches of so many bytes together have room after it; if they had not, Finish is called.
  void MakeRoom(int64_t bytes, int fetches);
  // How many units of `unit_bytes`, in that many fetches, it can hold at all; at least 1, or
  // aborts.
  int64_t Fits(int64_t unit_bytes, int fetches) const;

  // Waits for the device and lets everybody take.
  void Finish();
  // What is fetched from here on belongs to the next step. mark: what WorkQueue::EndStep returned.
  void EndStep(int64_t mark);
  // Waits for steps that ended with marks up to this one, and lets them take.
  void Await(int64_t mark);

 private:
  struct Step {
    std::byte* pinned = nullptr;  // [bytes_]
    int64_t used = 0;
    std::vector<std::function<void()>> takers;
    std::optional<int64_t> mark;  // it has ended, and not taken
    void Take();
  };

  DownloadArena(Runtime& runtime, WorkQueue& work, int64_t bytes)
      : runtime_(runtime), work_(work), bytes_(bytes) {}
  const std::byte* Fetch(const void* device, int64_t bytes);
  Step& Open();  // the present step, its memory free

  Runtime& runtime_;
  WorkQueue& work_;
  const int64_t bytes_;  // of a step
  std::byte* pinned_ = nullptr;
  std::array<Step, kStepsAtOnce> steps_;
  int step_ = 0;  // the present one
};

// Device memory for what one operation needs between its kernels: the next operation may have it.
class Scratch {
 public:
  // REQUIRES: runtime outlives it. Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<Scratch>> Create(Runtime& runtime, int64_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void Begin() { used_ = 0; }
  template <typename T>
  T* Take(int64_t count) {
    return static_cast<T*>(Take(count * static_cast<int64_t>(sizeof(T))));
  }
  // How many units of `unit_bytes`, taken in `parts` parts, there is room for; at least 1, or
  // aborts.
  int64_t Fits(int64_t unit_bytes, int parts) const;

 private:
  Scratch(Runtime& runtime, int64_t bytes) : runtime_(runtime), bytes_(bytes) {}
  void* Take(int64_t bytes);

  Runtime& runtime_;
  const int64_t bytes_;
  std::byte* device_ = nullptr;
  int64_t used_ = 0;
};

}  // namespace catserve::cuda
