#include "server/kserve/stream_infer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/kserve/refusal.h"
#include "server/status.h"

namespace catserve::kserve {

void LiveStreams::CancelStalled(absl::Time since) {
  absl::MutexLock lock(&mutex_);  // held, so that none of them ends meanwhile
  for (StreamInfer* const stream : streams_) stream->CancelIfStalled(since);
}

StreamInfer::StreamInfer(Parts parts) : parts_(parts) {
  parts_.live->Add(this);
  absl::MutexLock lock(&mutex_);
  GoOn();
}

void StreamInfer::OnReadDone(bool ok) {
  bool over = false;
  {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    if (!ok) {
      reads_done_ = true;
    } else if (absl::Status status = gone_ ? absl::OkStatus() : Begin(); !status.ok()) {
      parts_.metrics->CountRequest("ModelStreamInfer", ToGrpc(status).error_code());
      PushError(request_.id().size() <= kIdBytesMax ? request_.id() : "", status);
    }
    over = GoOn();
  }
  if (over) Finish(grpc::Status::OK);
}

absl::Status StreamInfer::Begin() {
  const absl::StatusOr<const ServedModel*> model = parts_.gate->Enter();
  if (!model.ok()) return model.status();
  absl::Status known = CheckModel(request_.model_name(), request_.model_version(), (*model)->name);
  if (!known.ok()) return known;
  const absl::StatusOr<InferRequest> read = ReadInfer(request_);
  if (!read.ok()) return read.status();
  auto owned = std::make_unique<Branch>(request_, *read);
  Branch& branch = *owned;
  branch.call = std::make_unique<InnerCall>(
      *parts_.stub, read->generate, *parts_.context,
      InnerCall::Callbacks{
          .event = [this, &branch](const v1::GenerateResponse& event) { OnEvent(branch, event); },
          .done = [this, &branch](const grpc::Status& status) { OnBranchDone(branch, status); }});
  branches_.emplace(&branch, std::move(owned));
  branch.call->Start();
  return absl::OkStatus();
}

void StreamInfer::OnEvent(Branch& branch, const v1::GenerateResponse& event) {
  bool over = false;
  {
    absl::MutexLock lock(&mutex_);
    branch.answer.Add(event);
    if (gone_ || !branch.answer.ready()) {
      branch.call->Next();
      return;
    }
    Outgoing outgoing;
    *outgoing.response.mutable_infer_response() = branch.answer.Take();
    outgoing.branch = &branch;
    outgoing_.push_back(std::move(outgoing));
    over = GoOn();
  }
  if (over) Finish(grpc::Status::OK);
}

void StreamInfer::OnBranchDone(Branch& branch, const grpc::Status& status) {
  bool over = false;
  {
    absl::MutexLock lock(&mutex_);
    if (!status.ok() && !gone_) {
      PushError(branch.id, absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                                        status.error_message()));
    }
    branches_.erase(&branch);
    over = GoOn();
  }
  if (over) Finish(grpc::Status::OK);
}

void StreamInfer::PushError(const std::string& id, const absl::Status& status) {
  Outgoing outgoing;
  outgoing.response.set_error_message(
      absl::StrCat(absl::StatusCodeToString(status.code()), ": ", Shortened(status).message()));
  outgoing.response.mutable_infer_response()->set_id(id);
  outgoing_.push_back(std::move(outgoing));
}

void StreamInfer::OnWriteDone(bool ok) {
  bool over = false;
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    Branch* const branch = outgoing_.front().branch;
    outgoing_.pop_front();
    if (branch != nullptr) branch->call->Next();
    if (!ok) GiveUp();
    over = GoOn();
  }
  if (over) Finish(grpc::Status::OK);
}

void StreamInfer::CancelIfStalled(absl::Time since) {
  absl::MutexLock lock(&mutex_);
  if (writing_ && write_start_ < since) parts_.context->TryCancel();
}

void StreamInfer::OnDone() {
  parts_.live->Remove(this);
  delete this;
}

void StreamInfer::OnCancel() {
  bool over = false;
  {
    absl::MutexLock lock(&mutex_);
    GiveUp();
    over = GoOn();
  }
  if (over) Finish(grpc::Status::OK);
}

void StreamInfer::GiveUp() {
  gone_ = true;
  for (const auto& [key, branch] : branches_) branch->call->Cancel();
  const size_t kept = writing_ ? 1 : 0;
  while (outgoing_.size() > kept) {
    if (Branch* const branch = outgoing_.back().branch) branch->call->Next();
    outgoing_.pop_back();
  }
}

bool StreamInfer::GoOn() {
  if (!writing_ && !outgoing_.empty()) {
    writing_ = true;
    write_start_ = absl::Now();
    StartWrite(&outgoing_.front().response);
  }
  const bool room = branches_.size() + outgoing_.size() < kStreamRequestsMax;
  if (!reading_ && !reads_done_ && room) {
    reading_ = true;
    StartRead(&request_);
  }
  const bool over = reads_done_ && branches_.empty() && outgoing_.empty();
  return over && !std::exchange(finished_, true);
}

}  // namespace catserve::kserve
