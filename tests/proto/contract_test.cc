// The contract's promises: what was published stays (tests/proto/baseline.txt), and the files keep
// the house's rules. After adding to the contract, run with CATSERVE_UPDATE_BASELINE=1; an entry
// that a client may rely on is never removed or changed.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace catserve {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::FileDescriptorSet;
using google::protobuf::MethodDescriptor;
using google::protobuf::SourceLocation;

constexpr char kBaseline[] = "tests/proto/baseline.txt";

class Contract : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ifstream in(CATSERVE_DESCRIPTORS, std::ios::binary);
    FileDescriptorSet set;
    ASSERT_TRUE(set.ParseFromIstream(&in)) << CATSERVE_DESCRIPTORS;
    for (const auto& proto : set.file()) {
      const FileDescriptor* file = pool_.BuildFile(proto);
      ASSERT_NE(file, nullptr) << proto.name();
      if (file->package().rfind("catserve.", 0) == 0) files_.push_back(file);
    }
    ASSERT_EQ(files_.size(), 2u);
  }

  template <typename Visit>
  void ForEachMessage(const Visit& visit) const {
    for (const FileDescriptor* file : files_) {
      for (int i = 0; i < file->message_type_count(); ++i) visit(*file->message_type(i));
    }
  }

  DescriptorPool pool_;
  std::vector<const FileDescriptor*> files_;
};

std::string TypeOf(const FieldDescriptor& field) {
  if (field.message_type() != nullptr) return field.message_type()->full_name();
  if (field.enum_type() != nullptr) return field.enum_type()->full_name();
  return field.type_name();
}

std::string LabelOf(const FieldDescriptor& field) {
  if (field.is_repeated()) return field.is_packed() ? "repeated packed " : "repeated ";
  if (field.real_containing_oneof() != nullptr) {
    return "oneof(" + field.real_containing_oneof()->name() + ") ";
  }
  return field.has_optional_keyword() ? "optional " : "";
}

// One line for each thing that a client's compiled code depends on.
std::set<std::string> Lines(const std::vector<const FileDescriptor*>& files) {
  std::set<std::string> lines;
  for (const FileDescriptor* file : files) {
    for (int i = 0; i < file->message_type_count(); ++i) {
      const Descriptor& message = *file->message_type(i);
      lines.insert("message " + message.full_name());
      for (int f = 0; f < message.field_count(); ++f) {
        const FieldDescriptor& field = *message.field(f);
        lines.insert("field " + field.full_name() + " = " + std::to_string(field.number()) + " " +
                     LabelOf(field) + TypeOf(field));
      }
    }
    for (int i = 0; i < file->enum_type_count(); ++i) {
      const EnumDescriptor& type = *file->enum_type(i);
      for (int v = 0; v < type.value_count(); ++v) {
        lines.insert("value " + type.full_name() + "." + type.value(v)->name() + " = " +
                     std::to_string(type.value(v)->number()));
      }
    }
    for (int i = 0; i < file->service_count(); ++i) {
      for (int m = 0; m < file->service(i)->method_count(); ++m) {
        const MethodDescriptor& method = *file->service(i)->method(m);
        lines.insert(
            "method " + method.full_name() + "(" + (method.client_streaming() ? "stream " : "") +
            method.input_type()->full_name() + ") returns (" +
            (method.server_streaming() ? "stream " : "") + method.output_type()->full_name() + ")");
      }
    }
  }
  return lines;
}

std::set<std::string> ReadBaseline() {
  std::ifstream in(kBaseline);
  std::set<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) lines.insert(line);
  }
  return lines;
}

TEST_F(Contract, NothingPublishedIsRemovedOrChanged) {
  const std::set<std::string> now = Lines(files_);
  const std::set<std::string> published = ReadBaseline();
  std::vector<std::string> lost, added;
  std::set_difference(published.begin(), published.end(), now.begin(), now.end(),
                      std::back_inserter(lost));
  std::set_difference(now.begin(), now.end(), published.begin(), published.end(),
                      std::back_inserter(added));
  EXPECT_THAT(lost, ::testing::IsEmpty())
      << "clients rely on these: reserve, never reuse or remove";
  if (lost.empty() && std::getenv("CATSERVE_UPDATE_BASELINE") != nullptr) {
    std::ofstream out(kBaseline);
    for (const std::string& line : now) out << line << "\n";
    return;
  }
  EXPECT_THAT(added, ::testing::IsEmpty())
      << "new in the contract: run this test with CATSERVE_UPDATE_BASELINE=1";
}

TEST_F(Contract, NamesFollowTheStyle) {
  const std::regex snake("[a-z][a-z0-9]*(_[a-z0-9]+)*"), camel("([A-Z][a-z0-9]*)+");
  ForEachMessage([&](const Descriptor& message) {
    EXPECT_TRUE(std::regex_match(message.name(), camel)) << message.full_name();
    for (int i = 0; i < message.field_count(); ++i) {
      EXPECT_TRUE(std::regex_match(message.field(i)->name(), snake))
          << message.field(i)->full_name();
    }
  });
}

TEST_F(Contract, PackagesMatchDirectories) {
  for (const FileDescriptor* file : files_) {
    std::string directory = file->package();
    std::replace(directory.begin(), directory.end(), '.', '/');
    EXPECT_EQ(file->name().substr(0, file->name().rfind('/')), directory);
    EXPECT_EQ(file->syntax(), FileDescriptor::SYNTAX_PROTO3);
  }
}

TEST_F(Contract, EnumsStartUnspecifiedAndCarryTheirName) {
  for (const FileDescriptor* file : files_) {
    for (int i = 0; i < file->enum_type_count(); ++i) {
      const EnumDescriptor& type = *file->enum_type(i);
      const std::string& zero = type.value(0)->name();
      EXPECT_EQ(type.value(0)->number(), 0);
      ASSERT_TRUE(std::regex_match(zero, std::regex("[A-Z_]+_UNSPECIFIED"))) << zero;
      const std::string prefix = zero.substr(0, zero.rfind("UNSPECIFIED"));
      for (int v = 0; v < type.value_count(); ++v) {
        EXPECT_EQ(type.value(v)->name().rfind(prefix, 0), 0u) << type.value(v)->full_name();
      }
    }
  }
}

bool IsRequestPart(const Descriptor& message, const std::vector<const FileDescriptor*>& files) {
  for (const FileDescriptor* file : files) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        std::vector<const Descriptor*> open = {file->service(s)->method(m)->input_type()};
        for (size_t i = 0; i < open.size(); ++i) {
          if (open[i] == &message) return true;
          for (int f = 0; f < open[i]->field_count(); ++f) {
            const Descriptor* part = open[i]->field(f)->message_type();
            if (part != nullptr && std::find(open.begin(), open.end(), part) == open.end()) {
              open.push_back(part);
            }
          }
        }
      }
    }
  }
  return false;
}

std::string CommentOf(const FieldDescriptor& field) {
  SourceLocation location;
  field.GetSourceLocation(&location);
  return location.leading_comments + location.trailing_comments;
}

TEST_F(Contract, ARequestScalarWithADefaultIsOptional) {
  ForEachMessage([&](const Descriptor& message) {
    if (!IsRequestPart(message, files_)) return;
    for (int i = 0; i < message.field_count(); ++i) {
      const FieldDescriptor& field = *message.field(i);
      const bool says_default = std::regex_search(CommentOf(field), std::regex("[Dd]efault"));
      if (!says_default || field.is_repeated() || field.message_type() != nullptr) continue;
      EXPECT_TRUE(field.has_presence()) << field.full_name() << ": zero is a value, not \"unset\"";
    }
  });
}

TEST_F(Contract, AnOptionalRequestFieldSaysItsDefaultOrItsBounds) {
  ForEachMessage([&](const Descriptor& message) {
    if (!IsRequestPart(message, files_)) return;
    for (int i = 0; i < message.field_count(); ++i) {
      if (!message.field(i)->has_optional_keyword()) continue;
      EXPECT_FALSE(CommentOf(*message.field(i)).empty())
          << message.field(i)->full_name() << " needs a comment: meaning, unit, range, default";
    }
  });
}

TEST_F(Contract, EveryMethodIsExplained) {
  for (const FileDescriptor* file : files_) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        SourceLocation location;
        const MethodDescriptor& method = *file->service(s)->method(m);
        EXPECT_TRUE(method.GetSourceLocation(&location) && !location.leading_comments.empty())
            << method.full_name();
      }
    }
  }
}

}  // namespace
}  // namespace catserve
