#include "server/token_stream.h"

#include <utility>

#include "absl/time/clock.h"
#include "grpcpp/server_context.h"

namespace catserve {

TokenStream::TokenStream(Parts parts)
    : parts_(std::move(parts)),
      in_process_(parts_.context->client_metadata().count(kInProcessHeader) > 0),
      lag_(parts_.reader_lag_tokens_max) {}

absl::StatusOr<TokenStream*> TokenStream::Start(Parts parts, Request request) {
  LiveRequests& live = *parts.live;
  Engine& engine = *parts.engine;
  const RequestName name = parts.request;
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  std::shared_ptr<TokenStream> stream(new TokenStream(std::move(parts)));
  if (absl::Status status = live.Add(name, stream); !status.ok()) return status;
  stream->self_ = stream;
  const absl::StatusOr<RequestKey> key =
      engine.Submit(std::move(request), [stream](Event event) { stream->Push(std::move(event)); });
  if (!key.ok()) {
    live.Remove(name, stream.get());
    stream->self_.reset();
    return key.status();
  }
  TokenStream* const raw = stream.get();
  raw->Charge(prompt_tokens);
  raw->Submitted(*key);
  return raw;
}

void TokenStream::Charge(int64_t tokens) {
  if (parts_.seat != nullptr) parts_.seat->Charge(tokens, absl::Now());
}

void TokenStream::Push(Event event) {
  absl::MutexLock lock(&mutex_);
  arrived_.push_back({std::move(event), absl::Now()});
  Post();
}

void TokenStream::Submitted(RequestKey key) {
  bool cancelled = false;
  {
    absl::MutexLock lock(&mutex_);
    key_ = key;
    cancelled = cancelled_;
    if (!arrived_.empty()) Post();
  }
  if (cancelled) parts_.engine->Cancel(key);
}

void TokenStream::Post() {
  if (posted_ || !key_.has_value()) return;
  posted_ = true;
  parts_.delivery->Post([self = shared_from_this()] { self->Deliver(); });
}

void TokenStream::Deliver() {
  std::vector<TimedEvent> events;
  bool left = false;
  RequestKey key = 0;
  {
    absl::MutexLock lock(&mutex_);
    posted_ = false;
    events.swap(arrived_);
    left = left_;
    key = *key_;
  }
  for (const TimedEvent& timed : events) {
    parts_.meter->Observe(timed);
    if (const auto* tokens = std::get_if<TokensEvent>(&timed.event)) {
      Charge(static_cast<int64_t>(tokens->tokens.size()));
    }
    if (const auto* finished = std::get_if<FinishedEvent>(&timed.event)) {
      end_ = parts_.reply->Finish(*finished, left);
    } else {
      parts_.reply->Add(timed.event);
    }
  }
  for (const int32_t choice : parts_.reply->TakeStoppedChoices()) {
    parts_.engine->EndChoice(key, choice);
  }
  WriteNext();
  PauseOrResume(key);
}

void TokenStream::PauseOrResume(RequestKey key) {
  if (end_.has_value()) return;  // the engine has forgotten it
  switch (lag_.Observe(parts_.reply->tokens() + in_flight_tokens_)) {
    case ReaderLag::Change::kPause:
      parts_.engine->Pause(key);
      parts_.meter->Paused(true, absl::Now());
      break;
    case ReaderLag::Change::kResume:
      parts_.engine->Resume(key);
      parts_.meter->Paused(false, absl::Now());
      break;
    case ReaderLag::Change::kNone: break;
  }
}

void TokenStream::WriteNext() {
  if (finishing_) return;
  bool write = false;
  {
    absl::MutexLock lock(&mutex_);
    if (writing_) return;
    write = !left_ && !parts_.reply->empty();
    writing_ = write;
    write_start_ = absl::Now();
  }
  const int32_t tokens_before = parts_.reply->tokens();
  if (write) in_flight_ = parts_.reply->Pop();
  in_flight_tokens_ = tokens_before - parts_.reply->tokens();
  finishing_ = end_.has_value() && (!write || (parts_.reply->empty() && !in_process_));
  if (finishing_) {
    parts_.meter->End(end_->error_code(), absl::Now());
    // First: who reads the end may use the id and the place again.
    parts_.live->Release(parts_.request);
    if (parts_.seat != nullptr) parts_.seat->Leave();
  }
  if (write && finishing_) {
    StartWriteAndFinish(&in_flight_, grpc::WriteOptions(), *end_);
  } else if (write) {
    StartWrite(&in_flight_);
  } else if (finishing_) {
    Finish(*end_);
  }
}

void TokenStream::CancelInEngine() {
  std::optional<RequestKey> key;
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    key = key_;
  }
  if (key.has_value()) parts_.engine->Cancel(*key);
}

void TokenStream::Abort() { CancelInEngine(); }

void TokenStream::CancelIfStalled(absl::Time since) {
  {
    absl::MutexLock lock(&mutex_);
    if (!writing_ || write_start_ >= since) return;
  }
  absl::MutexLock lock(&context_mutex_);
  if (!done_) parts_.context->TryCancel();
}

void TokenStream::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    left_ = left_ || !ok;
    Post();
  }
  if (!ok) CancelInEngine();
}

void TokenStream::OnCancel() {
  {
    absl::MutexLock lock(&mutex_);
    left_ = true;
    Post();  // an end that waits for a reader need not wait any more
  }
  CancelInEngine();
}

void TokenStream::OnDone() {
  {
    absl::MutexLock lock(&context_mutex_);
    done_ = true;
  }
  parts_.live->Remove(parts_.request, this);
  const std::shared_ptr<TokenStream> self = std::move(self_);  // deletes this, perhaps
}

}  // namespace catserve
