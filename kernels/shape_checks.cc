#include "kernels/shape_checks.h"

#include "kernels/check.h"
#include "kernels/sampling.h"

namespace catserve {

void CheckMatrix(const TensorView& view, const char* name) {
  CATSERVE_CHECK(view.rank == 2 && view.dtype == DType::kF32)
      << name << " must be a matrix of F32, not rank " << view.rank << " " << Name(view.dtype);
}

void CheckColumns(const TensorView& view, int64_t columns, const char* name) {
  CheckMatrix(view, name);
  CheckActivations(view, columns, name);
}

void CheckActivations(const TensorView& view, int64_t columns, const char* name) {
  CATSERVE_CHECK(view.rank == 2 && IsPlainFloat(view.dtype))
      << name << " must be a matrix of F32 or 16 bits, not rank " << view.rank << " "
      << Name(view.dtype);
  CATSERVE_CHECK(view.shape[1] == columns)
      << name << " has " << view.shape[1] << " columns where " << columns << " are needed";
}

void CheckWeights(const TensorView& host) {
  CATSERVE_CHECK(host.rank == 2 && IsPlainFloat(host.dtype))
      << "a weight matrix is [out, in] of a float type, not rank " << host.rank << " "
      << Name(host.dtype);
}

void CheckSpec(const HeadSpec& spec) {
  CATSERVE_CHECK(spec.heads > 0 && spec.kv_heads > 0 && spec.heads % spec.kv_heads == 0)
      << spec.heads << " heads cannot be grouped over " << spec.kv_heads << " key/value heads";
  CATSERVE_CHECK(spec.head_dim > 0 && spec.head_dim <= kHeadDimMax && spec.head_dim % 2 == 0)
      << "head_dim is " << spec.head_dim << "; it must be even and at most " << kHeadDimMax;
  for (const TensorView* norm : {&spec.q_norm, &spec.k_norm}) {
    CATSERVE_CHECK(norm->data == nullptr ||
                   (norm->dtype == DType::kF32 && norm->size() == spec.head_dim))
        << "a norm of heads is [" << spec.head_dim << "] F32, not " << norm->size() << " "
        << Name(norm->dtype);
  }
}

void CheckKv(const Backend& backend, const KvLayer& kv, const HeadSpec& spec) {
  CATSERVE_CHECK(backend.HoldsKv(kv.dtype))
      << backend.Description() << " has no KV memory of " << Name(kv.dtype);
  CATSERVE_CHECK(kv.kv_heads == spec.kv_heads && kv.head_dim == spec.head_dim)
      << "KV memory of " << kv.kv_heads << " heads of " << kv.head_dim << " for a layer of "
      << spec.kv_heads << " heads of " << spec.head_dim;
  CATSERVE_CHECK((kv.scales != nullptr) == (KvScaleBytes(kv.dtype) > 0))
      << "KV memory of 8 bits, and no other, has scales";
}

void CheckLogits(const TensorView& logits, int32_t vocab_size, size_t rows) {
  CheckMatrix(logits, "logits");
  CATSERVE_CHECK(vocab_size > 0 && vocab_size <= kSampleVocabMax && logits.shape[1] >= vocab_size)
      << "a vocabulary of " << vocab_size << " in " << logits.shape[1] << " columns";
  CATSERVE_CHECK(logits.rows() == static_cast<int64_t>(rows))
      << logits.rows() << " rows of logits for " << rows << " results";
}

}  // namespace catserve
