#include "tests/engine/model/tested_backends.h"

namespace catserve::testing {

TestedBackends Tested() {
  return {.fast = "cpu", .slow = {"cpu-reference"}, .same_bits = true, .four_bits = true};
}

}  // namespace catserve::testing
