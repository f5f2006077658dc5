// The safetensors format: what is read, and that damaged files are refused in one line.
#include <cstring>
#include <string>
#include <vector>

#include "engine/model/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/checkpoint_writer.h"

namespace catserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

absl::StatusOr<std::vector<TensorInfo>> Parse(const std::string& file) {
  return ParseSafetensors(std::as_bytes(std::span(file)), std::ssize(file), "m.safetensors");
}

TEST(ParseSafetensors, GivesNamesTypesShapesAndPlaces) {
  const std::string header = R"({"__metadata__":{"format":"pt"},)"
                             R"("b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                             R"("a":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},)"
                             R"("empty":{"dtype":"F16","shape":[0,5],"data_offsets":[26,26]}}  )";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  const auto tensors = Parse(SafetensorsFile(padded, std::string(26, 'x'))).value();
  const int64_t begin = 8 + padded.size();
  ASSERT_EQ(tensors.size(), 3);
  EXPECT_EQ(tensors[0].name, "b");
  EXPECT_EQ(tensors[0].dtype, DType::kF32);
  EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors[0].begin, begin);
  EXPECT_EQ(tensors[0].end, begin + 24);
  EXPECT_EQ(tensors[1].name, "a");
  EXPECT_EQ(tensors[1].dtype, DType::kBF16);
  EXPECT_TRUE(tensors[1].shape.empty());
  EXPECT_EQ(tensors[2].name, "empty");
}

TEST(ParseSafetensors, AcceptsAFileWithoutTensors) {
  EXPECT_TRUE(Parse(SafetensorsFile("{}", "")).value().empty());
}

struct BadFile {
  const char* header;
  int data_bytes;
  const char* message;
};

TEST(ParseSafetensors, RefusesEveryDamageByFileAndTensor) {
  const BadFile kBad[] = {
      {R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7,
       "\"t\" ends at byte 8 of the data, which has only 7: the file is cut short"},
      {R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9,
       "cover 8 bytes of data, the file has 9"},
      {R"({"t":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8,
       "\"t\" of shape [3] and dtype F32 needs 12 bytes, its data_offsets span 8"},
      {R"({"t":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", 8,
       "\"t\" has dtype \"F64\", only F32, F16 and BF16"},
      {R"({"t":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}})", 8, "\"t\" has dtype \"I32\""},
      {R"({"t":{"dtype":3,"shape":[2],"data_offsets":[0,8]}})", 8, "\"t\" has no \"dtype\""},
      {R"({"t":{"shape":[2],"data_offsets":[0,8]}})", 8, "\"t\" has no \"dtype\""},
      {R"({"t":{"dtype":"F32","data_offsets":[0,8]}})", 8, "\"t\" has no \"shape\""},
      {R"({"t":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8, "\"t\" has no \"shape\""},
      {R"({"t":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "that is no size"},
      {R"({"t":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8, "that is no size"},
      {R"({"t":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}})", 8, "that is no size"},
      {R"({"t":{"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,8]}})", 8,
       "\"t\" has 5 dimensions, at most 4"},
      {R"({"t":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0,
       "\"t\" has a shape that overflows"},
      {R"({"t":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]}})", 0,
       "that is no size"},
      {R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "that are no range"},
      {R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8, "no pair of"},
      {R"({"t":{"dtype":"F32","shape":[2]}})", 8, "no pair of"},
      {R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,-8]}})", 8, "that are no range"},
      {R"({"t":[1,2]})", 0, "\"t\" is described by no object"},
      {R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8,
       "\"t\" starts at byte 4 of the data, after a gap"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       12, "\"b\" starts at byte 4 of the data, inside the tensor that ends at 8"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8, "the key \"a\" stands twice"},
      {R"({"t\n":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", 8, "\"t\\n\" has dtype"},
      {R"([])", 0, "is not a JSON object"},
      {R"({"t")", 0, "is not valid JSON"},
      {R"({"t":{"t":{"t":{"t":{}}}}})", 0, "nested deeper than 4 levels"},
  };
  for (const BadFile& bad : kBad) {
    std::string header = bad.header;
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const auto tensors = Parse(SafetensorsFile(header, std::string(bad.data_bytes, '\0')));
    EXPECT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument) << bad.header;
    const std::string message(tensors.status().message());
    EXPECT_THAT(message, StartsWith("m.safetensors: ")) << bad.header;
    EXPECT_THAT(message, HasSubstr(bad.message)) << bad.header;
    EXPECT_THAT(message, Not(HasSubstr("\n"))) << bad.header;
  }
}

TEST(ParseSafetensors, RefusesLengthsThatTheFileDoesNotHave) {
  const auto with_length = [](uint64_t length) {
    std::string file = SafetensorsFile("{}", std::string(100, '\0'));
    std::memcpy(file.data(), &length, sizeof(length));
    return std::string(Parse(file).status().message());
  };
  EXPECT_THAT(with_length(1 << 30), HasSubstr("claims a header of 1073741824 bytes, at most 102"));
  EXPECT_THAT(with_length(~uint64_t{0}), HasSubstr("claims a header of 18446744073709551615"));
  EXPECT_THAT(with_length(0), HasSubstr("is not valid JSON"));
  EXPECT_THAT(std::string(Parse("1234567").status().message()), HasSubstr("7 bytes long"));
  EXPECT_THAT(std::string(Parse("").status().message()), HasSubstr("0 bytes long, too short"));
}

TEST(ParseSafetensors, RefusesDataThatNoPointerMayRead) {
  const std::string header = R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  const std::string odd = header + std::string(9 - header.size() % 8, ' ');
  EXPECT_THAT(std::string(Parse(SafetensorsFile(odd, "1234")).status().message()),
              HasSubstr("no multiple of its element's 4 bytes: write the file again"));
}

}  // namespace
}  // namespace catserve::testing
