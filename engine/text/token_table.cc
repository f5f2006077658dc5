#include "engine/text/token_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/message.h"
#include "engine/text/metaspace.h"

namespace catserve {
namespace {

// <0xNN>: one byte of a character that the vocabulary does not have.
std::optional<char> FallbackByte(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>') return {};
  if (!absl::ascii_isxdigit(spelling[3]) || !absl::ascii_isxdigit(spelling[4])) return {};
  return absl::HexStringToBytes({spelling.data() + 3, 2})[0];
}

std::string BytesOf(std::string_view spelling, TokenAlphabet alphabet) {
  if (alphabet == TokenAlphabet::kByteLevel) {
    // A string outside the alphabet cannot come from merging bytes: it stands for itself.
    return BytesOfSpelling(spelling).value_or(std::string(spelling));
  }
  if (const std::optional<char> byte = FallbackByte(spelling)) return std::string(1, *byte);
  return MetaspacesToSpaces(spelling);
}

absl::Status CheckId(int64_t id, std::string_view token) {
  if (id >= 0 && id < kVocabSizeMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Message("id ", id, " of ", Quoted(token), " is not between 0 and ", kVocabSizeMax - 1));
}

}  // namespace

absl::StatusOr<TokenTable> TokenTable::Build(TokenizerSpec& spec) {
  int32_t largest = -1;
  for (const auto& [token, id] : spec.vocab) {
    if (absl::Status status = CheckId(id, token); !status.ok()) {
      return absl::InvalidArgumentError(Message("model.vocab: ", status.message()));
    }
    largest = std::max(largest, id);
  }
  for (const AddedToken& token : spec.added) {
    if (absl::Status status = CheckId(token.id, token.content); !status.ok()) {
      return absl::InvalidArgumentError(Message("added_tokens: ", status.message()));
    }
    largest = std::max(largest, token.id);
  }
  TokenTable table;
  table.rows_.resize(largest + 1);
  if (absl::Status status = table.AddVocab(spec); !status.ok()) return status;
  for (size_t i = 0; i < spec.added.size(); ++i) {
    if (absl::Status status = table.AddAdded(spec.added[i], i); !status.ok()) return status;
  }
  return table;
}

absl::Status TokenTable::AddVocab(TokenizerSpec& spec) {
  vocab_.reserve(spec.vocab.size());
  for (auto& [token, id] : spec.vocab) {
    Row& row = rows_[id];
    if (row.used) {
      return absl::InvalidArgumentError(Message("model.vocab: id ", id, " belongs to both ",
                                                Quoted(row.spelling), " and ", Quoted(token)));
    }
    row.used = true;
    row.bytes = BytesOf(token, spec.alphabet);
    row.spelling = std::move(token);
    vocab_.emplace(row.spelling, id);
  }
  return absl::OkStatus();
}

absl::Status TokenTable::AddAdded(const AddedToken& token, size_t index) {
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        Message("added_tokens[", index, "]: ", Quoted(token.content), " ", why));
  };
  Row& row = rows_[token.id];
  const std::optional<int32_t> known = FindAny(token.content);
  if (known && *known != token.id) {
    return refuse(Message("has id ", token.id, " here and ", *known, " elsewhere"));
  }
  if (row.used && !known) {
    return refuse(Message("has the id of ", Quoted(row.spelling), ": ", token.id));
  }
  if (added_.contains(token.content)) return refuse("is listed twice");
  row.used = true;
  row.special = token.special;
  if (!known) row.spelling = token.content;
  row.bytes = token.content;
  added_.emplace(row.spelling, token.id);
  return absl::OkStatus();
}

std::optional<int32_t> TokenTable::Find(std::string_view spelling) const {
  const auto found = vocab_.find(spelling);
  if (found == vocab_.end()) return std::nullopt;
  return found->second;
}

std::optional<int32_t> TokenTable::FindAny(std::string_view spelling) const {
  const auto found = added_.find(spelling);
  if (found != added_.end()) return found->second;
  return Find(spelling);
}

}  // namespace catserve
