// The vocabulary of device.h for g++ and clang++: the emulator's fibers and the house's
// conversions. Collectives remember where they were called, which is how the emulator tells them
// apart.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/bfloat16.h"
#include "kernels/cuda/emulator/emulator.h"
#include "kernels/cuda/emulator/queue.h"
#include "kernels/cuda/emulator/work.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/number.h"
#include "kernels/cuda/operations.h"
#include "kernels/float8.h"

#define __global__ inline
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define CATSERVE_UNROLL
#define CATSERVE_SHARED(Type, name) Type& name = ::catserve::cuda::emulator::Shared<Type>()

namespace catserve::cuda::emulator {

template <typename T>
T& Shared(Place place = Place::Current()) {
  static_assert(sizeof(T) <= kSharedBytesMax && alignof(T) <= 16);
  static_assert(std::is_trivial_v<T>, "shared memory is not constructed");
  return *static_cast<T*>(SharedMemory(sizeof(T), place));
}

}  // namespace catserve::cuda::emulator

namespace catserve::cuda {

template <typename Args>
void Launch(void (*kernel)(Args), const LaunchShape& shape, const Args& args, Stream stream) {
  emulator::Work::Given().CountLaunch(kernel);
  emulator::QueueOf(stream).AddLaunch(shape, [kernel, args] { kernel(args); });
}

inline int ThreadX() { return static_cast<int>(emulator::Index().thread); }
inline int BlockX() { return static_cast<int>(emulator::Index().block_x); }
inline int BlockY() { return static_cast<int>(emulator::Index().block_y); }
inline int BlocksX() { return static_cast<int>(emulator::Shape().blocks_x); }
inline int ThreadsPerBlock() { return static_cast<int>(emulator::Shape().threads); }

inline void SyncBlock(emulator::Place place = emulator::Place::Current()) {
  emulator::SyncBlock(place);
}
inline void SyncWarp(emulator::Place place = emulator::Place::Current()) {
  const char nothing = 0;
  emulator::ExchangeInWarp(&nothing, sizeof(nothing), place);
}

template <typename T>
T Shuffle(T value, int lane, emulator::Place place = emulator::Place::Current()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  if (lane < 0 || lane >= kWarpThreads) emulator::Die("a shuffle from a lane that is none", place);
  return emulator::ValueOf<T>(emulator::ExchangeInWarp(&value, sizeof(T), place)[lane]);
}
template <typename T>
T ShuffleXor(T value, int lanes, emulator::Place place = emulator::Place::Current()) {
  return Shuffle(value, (ThreadX() % kWarpThreads) ^ lanes, place);
}

template <typename T>
T AtomicAdd(T* sum, std::type_identity_t<T> value) {
  static_assert(std::is_same_v<T, uint32_t> || std::is_same_v<T, uint64_t>);
  const T before = *sum;
  *sum += value;
  return before;
}

// Words of up to 16 bytes that were loaded at once; two bytes are half of one.
template <int kBytes>
struct Words {
  uint32_t word[(kBytes + 3) / 4];
};
template <int kBytes>
Words<kBytes> LoadVector(const void* from, emulator::Place place = emulator::Place::Current()) {
  static_assert(kBytes == 2 || kBytes == 4 || kBytes == 8 || kBytes == 16);
  if (reinterpret_cast<uintptr_t>(from) % kBytes != 0) emulator::Die("a misaligned load", place);
  Words<kBytes> words{};
  std::memcpy(&words, from, kBytes);
  return words;
}

template <int kBytes>
void StoreVector(void* to, const Words<kBytes>& words,
                 emulator::Place place = emulator::Place::Current()) {
  static_assert(kBytes == 16);
  if (reinterpret_cast<uintptr_t>(to) % kBytes != 0) emulator::Die("a misaligned store", place);
  std::memcpy(to, &words, kBytes);
}

// Two neighbouring numbers of 16 bits, anywhere in memory.
template <typename T>
uint32_t LoadPair(const T* from, emulator::Place place = emulator::Place::Current()) {
  static_assert(sizeof(T) == 2);
  return LoadVector<4>(from, place).word[0];
}
template <typename T>
void StorePair(T* to, uint32_t pair, emulator::Place place = emulator::Place::Current()) {
  static_assert(sizeof(T) == 2);
  if (reinterpret_cast<uintptr_t>(to) % 4 != 0) emulator::Die("a misaligned store", place);
  std::memcpy(static_cast<void*>(to), &pair, sizeof(pair));
}

inline float ToFloat(float x) { return x; }
inline float ToFloat(BF16 x) { return FloatFromBF16(x.bits); }
inline float ToFloat(F16 x) { return FloatFromF16(x.bits); }
inline float ToFloat(E4M3 x) { return FloatFromE4M3(x.bits); }
inline float ToFloat(I8 x) { return static_cast<float>(x); }

template <typename T>
T FromFloat(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else if constexpr (std::is_same_v<T, BF16>) {
    return {BF16FromFloat(x)};
  } else if constexpr (std::is_same_v<T, F16>) {
    return {F16FromFloat(x)};
  } else if constexpr (std::is_same_v<T, E4M3>) {
    return {E4M3FromFloat(x)};
  } else {
    static_assert(std::is_same_v<T, I8>);
    return static_cast<I8>(std::nearbyint(std::fmin(std::fmax(x, -127.0f), 127.0f)));
  }
}

inline float Exp2(float x) { return std::exp2(x); }
inline uint64_t MulHigh(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}

// d += a b for a tile of 16 x 8 with 16 products each; fragments as PTX lays out mma.m16n8k16: in
// lane 4 g + t, a holds rows g and g + 8, b column g, both at k = 2 t, 2 t + 1 and 8 further.
template <typename T>
void MatrixMultiplyAdd(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                       emulator::Place place = emulator::Place::Current()) {
  struct Fragments {
    uint32_t a[4];
    uint32_t b[2];
  } mine;
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  const auto lanes = emulator::ExchangeInWarp(&mine, sizeof(mine), place);
  const auto half = [](uint32_t word, int high) {
    return ToFloat(T{static_cast<uint16_t>(high != 0 ? word >> 16 : word & 0xffffu)});
  };
  const int lane = ThreadX() % kWarpThreads;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + (i < 2 ? 0 : 8);
    const int column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const auto x = emulator::ValueOf<Fragments>(lanes[row % 8 * 4 + k % 8 / 2]);
      const auto y = emulator::ValueOf<Fragments>(lanes[column * 4 + k % 8 / 2]);
      d[i] = std::fma(half(x.a[row / 8 + k / 8 * 2], k % 2), half(y.b[k / 8], k % 2), d[i]);
    }
  }
}

}  // namespace catserve::cuda
