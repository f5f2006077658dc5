#include "engine/text/tokenizer_files.h"

#include <fstream>
#include <system_error>

#include "engine/text/json_reader.h"
#include "engine/text/message.h"

namespace catserve {
namespace {

// A token's name is written plainly or as an object with its content.
std::string TokenName(const JsonField& field) {
  if (field.value().is_object()) return field["content"].String();
  return field.StringOr("");
}

}  // namespace

absl::Status ApplyTokenizerConfig(std::string_view json, TokenizerSpec& spec) {
  const absl::StatusOr<nlohmann::json> document = ParseBoundedJson(json);
  if (!document.ok()) return document.status();
  absl::Status status;
  const JsonField root(*document, "", &status);
  const std::string bos = TokenName(root["bos_token"]);
  const std::string eos = TokenName(root["eos_token"]);
  if (!bos.empty()) spec.bos_token = bos;
  if (!eos.empty()) spec.eos_token = eos;
  spec.prepend_bos = root["add_bos_token"].BoolOr(spec.prepend_bos);
  return status;
}

absl::StatusOr<std::string> ReadTokenizerFile(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    return absl::NotFoundError(Message(path.string(), ": no such file"));
  }
  if (!std::filesystem::is_regular_file(status)) {
    return absl::InvalidArgumentError(Message(path.string(), ": not a regular file"));
  }
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size > kJsonBytesMax) {
    return absl::InvalidArgumentError(Message(path.string(), ": ",
                                              error ? error.message() : Message(size, " bytes"),
                                              "; at most ", kJsonBytesMax, " bytes are read"));
  }
  std::string content(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(content.data(), static_cast<std::streamsize>(size))) {
    return absl::InvalidArgumentError(Message(path.string(), ": cannot be read"));
  }
  return content;
}

}  // namespace catserve
