#include "server/wire.h"

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/text/utf8.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "grpcpp/impl/codegen/proto_utils.h"

namespace catserve {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

constexpr int kNestingMax = 32;  // far beyond the contract's

class Explainer {
 public:
  // The first problem of a message of that type; nullopt if there is none.
  std::optional<std::string> Find(const Descriptor& type, absl::string_view bytes,
                                  const std::string& path, int depth) {
    if (depth > kNestingMax) return absl::StrCat(path, ": nested too deeply");
    CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes.data()),
                        static_cast<int>(bytes.size()));
    while (const uint32_t tag = in.ReadTag()) {
      const FieldDescriptor* field = type.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
      const bool has_content = field != nullptr && WireFormatLite::GetTagWireType(tag) ==
                                                       WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
      const std::string name = Join(path, field == nullptr ? "an unknown field" : field->name());
      if (!has_content) {
        if (!WireFormatLite::SkipField(&in, tag)) return absl::StrCat(name, ": damaged or cut off");
        continue;
      }
      std::string content;
      if (!WireFormatLite::ReadBytes(&in, &content)) {
        return absl::StrCat(name, ": damaged or cut off");
      }
      if (auto problem = CheckContent(*field, content, name, depth)) return problem;
    }
    if (!in.ConsumedEntireMessage()) return absl::StrCat(Join(path, "message"), ": cut off");
    return std::nullopt;
  }

 private:
  static std::string Join(const std::string& path, absl::string_view name) {
    return path.empty() ? std::string(name) : absl::StrCat(path, ".", name);
  }

  std::optional<std::string> CheckContent(const FieldDescriptor& field, absl::string_view content,
                                          const std::string& name, int depth) {
    if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
      return Find(*field.message_type(), content, name, depth + 1);
    }
    if (field.type() != FieldDescriptor::TYPE_STRING) return std::nullopt;
    const std::optional<size_t> offset = FirstInvalidUtf8({content.data(), content.size()});
    if (!offset) return std::nullopt;
    return absl::StrCat(name, ": not valid UTF-8 at byte ", *offset, "; send UTF-8 text",
                        name == "prompt.text" ? " or token_ids" : "");
  }
};

}  // namespace

absl::Status ExplainParseFailure(const Descriptor& type, absl::string_view bytes) {
  const std::optional<std::string> problem = Explainer().Find(type, bytes, "", 0);
  return absl::InvalidArgumentError(problem ? *problem
                                            : absl::StrCat("the message is no ", type.full_name()));
}

absl::Status ParseBytes(const grpc::ByteBuffer& buffer, google::protobuf::Message& message) {
  grpc::Slice slice;
  if (!buffer.TrySingleSlice(&slice).ok() && !buffer.DumpToSingleSlice(&slice).ok()) {
    return absl::InvalidArgumentError("the message cannot be read");
  }
  if (message.ParseFromArray(slice.begin(), static_cast<int>(slice.size()))) {
    return absl::OkStatus();
  }
  return ExplainParseFailure(
      *message.GetDescriptor(),
      absl::string_view(reinterpret_cast<const char*>(slice.begin()), slice.size()));
}

grpc::ByteBuffer SerializeBytes(const google::protobuf::Message& message) {
  grpc::Slice slice(message.ByteSizeLong());
  // Slices are immutable once shared; this one is not yet.
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace catserve
