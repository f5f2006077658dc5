#include "kernels/cpu/forms.h"

namespace catserve::cpu {

std::span<const Form> Forms() {
  static const Form kForms[] = {
      {"cpu-avx512-bf16", Avx512Bf16Ops()}, {"cpu-avx512-vnni", Avx512VnniOps()},
      {"cpu-avx512", Avx512Ops()},          {"cpu-avx2", Avx2Ops()},
      {"cpu-reference", &ReferenceOps()},
  };
  return kForms;
}

const Ops& FastestOps() {
  for (const Form& form : Forms()) {
    if (form.ops != nullptr) return *form.ops;
  }
  return ReferenceOps();
}

}  // namespace catserve::cpu
