// A mutator for texts whose meaning lies in their numbers: one time in two it puts another number
// in the place of one of them, so that the text stays well-formed and the checks behind the parser
// are reached.
#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

// The places of runs of digits: first and length.
std::vector<std::pair<size_t, size_t>> Numbers(const std::string& text) {
  std::vector<std::pair<size_t, size_t>> places;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!std::isdigit(static_cast<unsigned char>(text[i]))) continue;
    const size_t first = i;
    while (i < text.size() && std::isdigit(static_cast<unsigned char>(text[i]))) ++i;
    places.emplace_back(first, i - first);
  }
  return places;
}

std::string OtherNumber(const std::string& digits, std::minstd_rand& random) {
  const uint64_t number = std::strtoull(digits.c_str(), nullptr, 10);
  switch (random() % 6) {
    case 0: return std::to_string(number + 1);
    case 1: return std::to_string(number - 1);
    case 2: return std::to_string(number * 2);
    case 3: return std::to_string(number / 2);
    case 4: return std::to_string(random() % 100);
    default: return std::to_string(uint64_t{1} << random() % 64);
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  std::minstd_rand random(seed);
  std::string text(reinterpret_cast<const char*>(data), size);
  const auto numbers = Numbers(text);
  if (random() % 2 == 0 || numbers.empty()) return LLVMFuzzerMutate(data, size, max_size);
  const auto [first, length] = numbers[random() % numbers.size()];
  text.replace(first, length, OtherNumber(text.substr(first, length), random));
  const size_t taken = std::min(text.size(), max_size);
  std::memcpy(data, text.data(), taken);
  return taken;
}
