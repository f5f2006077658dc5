// For the few functions that host and device share; kernels have all of device.h.
#pragma once

#ifdef __CUDACC__
#define CATSERVE_HOST_DEVICE __host__ __device__
#else
#define CATSERVE_HOST_DEVICE
#endif
