// What happens when a device stops answering: nothing that it held can be had back, so the process
// says so and ends. Whoever restarts it starts it whole.
#pragma once

#include <functional>
#include <string>

namespace catserve {

// Exit status of a process that lost its device.
inline constexpr int kExitBackendLost = 70;

// Called once, before the process ends, on the thread that found out: it tells logs and probes, and
// must not use the backend. Set at start, before there is a backend; without it the message goes to
// stderr.
void OnBackendLost(std::function<void(const std::string& message)> tell);

// during: what was tried ("launching a kernel"); why: the driver's words.
[[noreturn]] void BackendLost(const char* during, const char* why);

}  // namespace catserve
