// An instance that the backend does not use: it copies pages with the runtime. Compiled so that it
// stays free of spills; a test emulates it.
#include "kernels/cuda/copy_pages.cuh"
