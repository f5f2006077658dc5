// catctl score: a text's log-probability at several chunk sizes, side by side.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "server/catctl/commands.h"
#include "server/catctl/flags.h"

namespace catserve {
namespace {

using Piece = std::vector<int32_t>;

struct Score {
  int64_t tokens = 0;
  double sum_logprob = 0;
  int64_t bytes = 0;
};

// Cuts ids into pieces that fit the context, each of at least two tokens: one has nothing to score.
std::vector<Piece> Cut(const v1::TokenizeResponse& text, const v1::GetModelResponse& model) {
  const bool has_bos = model.has_bos_token_id();
  const int room = std::max(2, model.context_limit()) - (has_bos ? 1 : 0);
  std::vector<Piece> pieces;
  for (int first = 0; first < text.token_ids_size(); first += room) {
    const int count = std::min(room, text.token_ids_size() - first);
    Piece piece;
    if (has_bos) piece.push_back(model.bos_token_id());
    piece.insert(piece.end(), text.token_ids().begin() + first,
                 text.token_ids().begin() + first + count);
    if (piece.size() > 1) pieces.push_back(std::move(piece));
  }
  return pieces;
}

grpc::Status ScorePiece(const Client& client, const Piece& piece, int32_t chunk_size,
                        Score& total) {
  v1::ScoreRequest request;
  request.mutable_text()->mutable_token_ids()->mutable_ids()->Add(piece.begin(), piece.end());
  if (chunk_size != 0) request.set_chunk_size(chunk_size);
  Call call(client);
  const auto stream = client.generation->Score(&call.context, request);
  v1::ScoreResponse response;
  while (stream->Read(&response)) {
    if (!response.has_finished()) continue;
    total.tokens += response.finished().scored_tokens();
    total.sum_logprob += response.finished().sum_logprob();
    total.bytes += response.finished().scored_bytes();
  }
  return stream->Finish();
}

grpc::Status Prepare(const Client& client, const std::string& text, v1::GetModelResponse& model,
                     v1::TokenizeResponse& tokens) {
  {
    Call call(client);
    grpc::Status status = client.models->GetModel(&call.context, {}, &model);
    if (!status.ok()) return status;
  }
  Call call(client);
  v1::TokenizeRequest request;
  request.set_text(text);
  return client.generation->Tokenize(&call.context, request, &tokens);
}

void PrintRow(int32_t chunk_size, const Score& score) {
  const std::string name = chunk_size > 0 ? absl::StrCat(chunk_size) : "dense";
  const double nats = -score.sum_logprob;
  std::printf("%10s  %8s  %14.4f  %10.4f  %10.4f\n", name.c_str(),
              absl::StrCat(score.tokens).c_str(), nats,
              score.tokens > 0 ? nats / static_cast<double>(score.tokens) : 0.0,
              score.bytes > 0 ? nats / std::log(2.0) / static_cast<double>(score.bytes) : 0.0);
}

}  // namespace

int ScoreCommand(const Client& client, const std::vector<std::string>& words) {
  const std::string file = absl::GetFlag(FLAGS_file);
  if (file.empty() || !words.empty()) {
    return FailUsage("score needs a text: catctl score --file=FILE --chunk_size=4,8,16");
  }
  const absl::StatusOr<std::string> text = ReadInput(file);
  if (!text.ok()) return FailUsage(text.status().message());
  if (text->empty()) return FailUsage(absl::StrCat(file, " is empty: there is nothing to score"));
  v1::GetModelResponse model;
  v1::TokenizeResponse tokens;
  if (grpc::Status status = Prepare(client, *text, model, tokens); !status.ok()) {
    return Fail(status, client);
  }
  std::vector<int32_t> chunk_sizes;
  for (const v1::ChunkSizeInfo& info : model.chunk_sizes()) {
    chunk_sizes.push_back(info.chunk_size());
  }
  if (chunk_sizes.empty()) chunk_sizes.push_back(0);
  if (const std::string list = absl::GetFlag(FLAGS_chunk_size); !list.empty()) {
    absl::StatusOr<std::vector<int32_t>> chosen = ReadNumbers("chunk_size", list);
    if (!chosen.ok()) return FailUsage(chosen.status().message());
    chunk_sizes = *std::move(chosen);
  }
  const std::vector<Piece> pieces = Cut(tokens, model);
  if (pieces.size() > 1) {
    std::printf(
        "%d tokens are more than the context of %d: scored as %zu pieces, cut between\n"
        "tokens; a piece does not see the one before\n",
        tokens.token_ids_size(), model.context_limit(), pieces.size());
  }
  std::printf("%10s  %8s  %14s  %10s  %10s\n", "chunk size", "tokens", "nll (nats)", "nats/token",
              "bits/byte");
  for (const int32_t chunk_size : chunk_sizes) {
    Score total;
    for (const Piece& piece : pieces) {
      const grpc::Status status = ScorePiece(client, piece, chunk_size, total);
      if (!status.ok()) return Fail(status, client, /*answered=*/true);
    }
    PrintRow(chunk_size, total);
    std::fflush(stdout);
  }
  return kExitOk;
}

}  // namespace catserve
