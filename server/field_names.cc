#include "server/field_names.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace catserve {
namespace {

using google::protobuf::Descriptor;

bool IsNameCharacter(char c) { return absl::ascii_isalnum(c) || c == '_' || c == '.'; }

// "sampling." for "top_p"; empty for the request's own fields and for what is no field.
std::string GroupOf(const Descriptor& request, absl::string_view name) {
  const std::string field(name.substr(0, name.find('.')));
  if (request.FindFieldByName(field) != nullptr) return "";
  for (int i = 0; i < request.field_count(); ++i) {
    const Descriptor* group = request.field(i)->message_type();
    if (group != nullptr && group->FindFieldByName(field) != nullptr) {
      return absl::StrCat(request.field(i)->name(), ".");
    }
  }
  return "";
}

// "stop" and "text" may be words of a sentence; "max_tokens" and "n" cannot.
bool IsNoEnglishWord(absl::string_view name) {
  return name.size() == 1 || name.find_first_of("_.") != absl::string_view::npos;
}

}  // namespace

absl::Status NameFieldsByPath(const Descriptor& request, const absl::Status& status) {
  if (!absl::IsInvalidArgument(status)) return status;
  std::string message;
  absl::string_view rest = status.message();
  while (!rest.empty()) {
    const auto end = std::find_if_not(rest.begin(), rest.end(), IsNameCharacter);
    const absl::string_view name = rest.substr(0, end - rest.begin());
    if (message.empty() || IsNoEnglishWord(name)) message += GroupOf(request, name);
    const size_t taken = std::max<size_t>(name.size(), 1);  // a name, or what stands between two
    absl::StrAppend(&message, rest.substr(0, taken));
    rest.remove_prefix(taken);
  }
  return absl::InvalidArgumentError(message);
}

}  // namespace catserve
