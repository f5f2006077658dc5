#include "kernels/cuda/staging.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/check.h"
#include "kernels/cuda/launch_shape.h"

namespace catserve::cuda {
namespace {

constexpr int64_t kPartAlignment = 256;  // of scratch memory: what cudaMalloc aligns to

int64_t Aligned(int64_t bytes, int64_t alignment) { return DivideUp(bytes, alignment) * alignment; }

// What is copied in and no larger travels with the lists, and from there within the device.
constexpr int64_t kWithListsMax = 16 << 10;

constexpr size_t kWaitingMax = 1 << 16;

// Places for lists of parts are multiples of this; more makes the gaps between them worse, which go
// up with them.
int64_t PlaceUnit(int64_t arena_bytes) {
  constexpr int64_t kMost = 32 << 10;
  return std::min(kMost, arena_bytes / 32) / Packet::kAlignment * Packet::kAlignment;
}

void LaunchCopy(Runtime* runtime, void* to, const void* from, int64_t bytes, Stream /*stream*/) {
  runtime->Copy(to, from, bytes);
}

// Units that fit into `bytes` in so many parts.
int64_t UnitsIn(int64_t bytes, int64_t unit_bytes, int64_t alignment_bytes) {
  const int64_t units = (bytes - alignment_bytes) / std::max<int64_t>(1, unit_bytes);
  CATSERVE_CHECK(units >= 1) << "one row takes " << unit_bytes << " bytes of a memory of " << bytes
                             << ": give the backend more";
  return units;
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkQueue>> WorkQueue::Create(Runtime& runtime, int64_t bytes) {
  std::unique_ptr<WorkQueue> queue(new WorkQueue(runtime, bytes));
  absl::StatusOr<void*> pinned = runtime.AllocatePinned(kStepsAtOnce * bytes);
  if (!pinned.ok()) return pinned.status();
  queue->pinned_ = static_cast<std::byte*>(*pinned);
  absl::StatusOr<void*> device = runtime.Allocate(bytes);
  if (!device.ok()) return device.status();
  queue->device_ = static_cast<std::byte*>(*device);
  return queue;
}

WorkQueue::~WorkQueue() {
  if (device_ != nullptr) runtime_.Free(device_);
  if (pinned_ != nullptr) runtime_.FreePinned(pinned_);
}

int WorkQueue::PlaceOf(const StepPart& part) {
  if (part.kind == PartKind::kDecoder) return kDecoderPlace;
  if (part.kind == PartKind::kOutput) return kOutputPlace;
  return std::bit_width(static_cast<uint32_t>(part.chunk_size)) % kCompressorPlaces;
}

void WorkQueue::BeginPart(const StepPart& part) {
  if (part.kind == PartKind::kOther) return EndPart();
  waiting_.push_back({.key = part});
  ++generation_;
}

void WorkQueue::EndPart() {
  if (in_part()) waiting_.push_back({});
}

int64_t WorkQueue::RoomFor(int64_t n) const {
  if (!in_part() || n == 0) return n;
  const int64_t rows = waiting_.back().key.rows;
  return n <= rows ? rows : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(n)));
}

void WorkQueue::Add(std::unique_ptr<Task> task) {
  if (waiting_tasks_ >= kWaitingMax) Submit();
  if (waiting_.empty()) waiting_.push_back({});
  waiting_.back().tasks.push_back(std::move(task));
  ++waiting_tasks_;
}

void WorkQueue::MakeRoom(int64_t bytes, int packets) {
  const int64_t needed = bytes + packets * Packet::kAlignment;
  CATSERVE_CHECK(needed <= bytes_ - places_.back().end)
      << "the lists of one operation take " << needed << " bytes of an upload arena of "
      << bytes_ - places_.back().end << ": give the backend a larger one";
  if (needed <= bytes_ - used_) return;
  Synchronize();
  Reset();
}

void WorkQueue::Write(int64_t at, const void* from, int64_t bytes) {
  std::optional<int64_t>& read_until = read_until_[step_];
  if (read_until) runtime_.Wait(*read_until);
  read_until.reset();
  if (bytes > 0) std::memcpy(pinned() + at, from, static_cast<size_t>(bytes));
}

int64_t WorkQueue::Stage(const void* from, int64_t bytes) {
  MakeRoom(bytes, 1);
  const int64_t at = used_;
  Write(at, from, bytes);
  used_ = Aligned(at + bytes, Packet::kAlignment);
  return at;
}

const std::byte* WorkQueue::Send(const Packet& packet) {
  if (in_part()) {
    Place& place = places_[PlaceOf(waiting_.back().key)];
    if (packet.size() <= place.end - place.used) {
      const int64_t at = place.used;
      Write(at, packet.data(), packet.size());
      place.used = std::min(place.end, Aligned(at + packet.size(), Packet::kAlignment));
      first_unsent_ = std::min(first_unsent_, at);
      return device_ + at;
    }
  }
  return device_ + SendApart(packet);
}

int64_t WorkQueue::SendApart(const Packet& packet) { return Stage(packet.data(), packet.size()); }

void WorkQueue::Copy(void* to, const void* from, int64_t bytes) {
  EndPart();
  Do<LaunchCopy>(&runtime_, to, from, bytes);
}

void WorkQueue::CopyIn(void* to, const void* from, int64_t bytes) {
  if (bytes <= kWithListsMax) return Copy(to, device_ + Stage(from, bytes), bytes);
  auto* device = static_cast<std::byte*>(to);
  const auto* host = static_cast<const std::byte*>(from);
  const int64_t piece_max = (bytes_ - places_.back().end) / 2;
  for (int64_t done = 0; done < bytes;) {
    const int64_t piece = std::min(piece_max, bytes - done);
    Submit();  // what came before, and its lists
    const int64_t at = Stage(host + done, piece);
    runtime_.Copy(device + done, pinned() + at, piece);
    sent_ = used_;
    done += piece;
  }
}

void WorkQueue::Submit() {
  const int64_t from = std::min(sent_, first_unsent_);
  if (used_ > from) runtime_.Copy(device_ + from, pinned() + from, used_ - from);
  sent_ = used_;
  first_unsent_ = bytes_;
  waiting_tasks_ = 0;
  for (Part& part : std::exchange(waiting_, {})) graphs_.Run(part.key, std::move(part.tasks));
}

void WorkQueue::Synchronize() {
  Submit();
  runtime_.Synchronize();
}

int64_t WorkQueue::EndStep() {
  Submit();
  const int64_t mark = runtime_.Mark();
  read_until_[step_] = mark;
  step_ = (step_ + 1) % kStepsAtOnce;
  Reset();
  return mark;
}

void WorkQueue::Reset() {
  CATSERVE_CHECK(waiting_.empty()) << "lists are given up while work waits for them";
  const int64_t unit = PlaceUnit(bytes_);
  int64_t end = 0;
  for (Place& place : places_) {
    const bool twice = &place >= &places_[kOutputPlace];  // they have the longest lists
    place = {.used = end, .end = end + (twice ? 2 * unit : unit)};
    end = place.end;
  }
  used_ = sent_ = end;
  first_unsent_ = bytes_;
  ++generation_;
}

absl::StatusOr<std::unique_ptr<DownloadArena>> DownloadArena::Create(Runtime& runtime,
                                                                     WorkQueue& work,
                                                                     int64_t bytes) {
  std::unique_ptr<DownloadArena> arena(new DownloadArena(runtime, work, bytes));
  absl::StatusOr<void*> pinned = runtime.AllocatePinned(kStepsAtOnce * bytes);
  if (!pinned.ok()) return pinned.status();
  arena->pinned_ = static_cast<std::byte*>(*pinned);
  for (int i = 0; i < kStepsAtOnce; ++i) arena->steps_[i].pinned = arena->pinned_ + i * bytes;
  return arena;
}

DownloadArena::~DownloadArena() {
  if (pinned_ != nullptr) runtime_.FreePinned(pinned_);
}

void DownloadArena::MakeRoom(int64_t bytes, int fetches) {
  const int64_t needed = bytes + fetches * Packet::kAlignment;
  CATSERVE_CHECK(needed <= bytes_)
      << "the results of one operation take " << needed << " bytes of a download arena of "
      << bytes_ << ": give the backend a larger one";
  if (needed > bytes_ - Open().used) Finish();
}

int64_t DownloadArena::Fits(int64_t unit_bytes, int fetches) const {
  return UnitsIn(bytes_, unit_bytes, fetches * Packet::kAlignment);
}

const std::byte* DownloadArena::Fetch(const void* device, int64_t bytes) {
  Step& step = Open();
  CATSERVE_CHECK(bytes <= bytes_ - step.used) << "call MakeRoom before the fetches of an operation";
  std::byte* const to = step.pinned + step.used;
  work_.Copy(to, device, bytes);
  step.used = Aligned(step.used + bytes, Packet::kAlignment);
  return to;
}

DownloadArena::Step& DownloadArena::Open() {
  Step& step = steps_[step_];
  if (step.mark) Await(*step.mark);
  return step;
}

void DownloadArena::EndStep(int64_t mark) {
  Open().mark = mark;
  step_ = (step_ + 1) % kStepsAtOnce;
}

void DownloadArena::Await(int64_t mark) {
  runtime_.Wait(mark);
  for (Step& step : steps_) {
    if (step.mark && *step.mark <= mark) step.Take();
  }
}

void DownloadArena::Step::Take() {
  for (const std::function<void()>& take : std::exchange(takers, {})) take();
  used = 0;
  mark.reset();
}

void DownloadArena::Finish() {
  work_.Synchronize();
  for (Step& step : steps_) step.Take();
}

absl::StatusOr<std::unique_ptr<Scratch>> Scratch::Create(Runtime& runtime, int64_t bytes) {
  std::unique_ptr<Scratch> scratch(new Scratch(runtime, bytes));
  absl::StatusOr<void*> device = runtime.Allocate(bytes);
  if (!device.ok()) return device.status();
  scratch->device_ = static_cast<std::byte*>(*device);
  return scratch;
}

Scratch::~Scratch() {
  if (device_ != nullptr) runtime_.Free(device_);
}

void* Scratch::Take(int64_t bytes) {
  CATSERVE_CHECK(bytes <= bytes_ - used_)
      << "an operation takes " << bytes << " bytes of scratch where " << bytes_ - used_
      << " are left: give the backend more, or ask Fits first";
  std::byte* const part = device_ + used_;
  used_ = Aligned(used_ + bytes, kPartAlignment);
  return part;
}

int64_t Scratch::Fits(int64_t unit_bytes, int parts) const {
  return UnitsIn(bytes_, unit_bytes, parts * kPartAlignment);
}

}  // namespace catserve::cuda
