#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

__m128i Narrow8(__m256 value, DType dtype) {
  return dtype == DType::kBF16 ? NarrowBF16(value) : _mm256_cvtps_ph(value, kNearestEven);
}

__m256 Widen8(__m128i bits, DType dtype) {
  return dtype == DType::kBF16 ? WidenBF16(bits) : _mm256_cvtph_ps(bits);
}

}  // namespace

void Widen(float* out, const void* in, DType dtype, int64_t n) {
  if (dtype == DType::kF32) {
    std::memcpy(out, in, static_cast<size_t>(n) * 4);
    return;
  }
  const uint16_t* from = static_cast<const uint16_t*>(in);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(out + i, Widen8(bits, dtype));
  }
  if (i < n) StoreFirst(out + i, Widen8(LoadFirst16(from + i, n - i), dtype), n - i);
}

void Narrow(void* out, const float* in, DType dtype, int64_t n) {
  if (dtype == DType::kF32) {
    std::memcpy(out, in, static_cast<size_t>(n) * 4);
    return;
  }
  uint16_t* to = static_cast<uint16_t*>(out);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), Narrow8(Load(in + i), dtype));
  }
  if (i < n) {
    const __m128i last = Narrow8(LoadFirst(in + i, n - i), dtype);
    std::memcpy(to + i, &last, static_cast<size_t>(n - i) * 2);
  }
}

float LargestMagnitude(const float* in, int64_t n) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 8) {
    const __m256 x = i + 8 <= n ? Load(in + i) : LoadFirst(in + i, n - i);
    largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(x), magnitude));
  }
  return MaxMagnitude(largest);
}

void Quantize(int8_t* out, const float* in, float scale, int64_t n) {
  const __m256 divisor = _mm256_set1_ps(scale);
  for (int64_t i = 0; i < n; i += 8) {
    const int64_t count = n - i < 8 ? n - i : 8;
    const __m256i q = _mm256_cvtps_epi32(_mm256_div_ps(LoadFirst(in + i, count), divisor));
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    const __m128i bytes = _mm_packs_epi16(words, words);
    std::memcpy(out + i, &bytes, static_cast<size_t>(count));
  }
}

}  // namespace catserve::cpu::avx2
