/* What stands in front of CUDA kernels, with scalar.h (codegen/c) behind its first half: types, and
 * the scalar rows that a GPU has instructions for. The same text is compiled by NVRTC, and for
 * target cuda:host by clang, with BURIN_STAND_IN, where stand_in.h (runtime/cuda), which then stands
 * in front of this, plays the device. */
#ifdef BURIN_STAND_IN
#include <stddef.h>
#include <stdint.h>
#define memcpy __builtin_memcpy
#define __global__
#define __launch_bounds__(...)
#define BURIN_PTX 0
typedef struct BurinIndex {
  int x, y, z;
} BurinIndex;
extern "C" {
double burin_rt_fmod(double a, double b);
float burin_rt_fmodf(float a, float b);
}
static BurinIndex blockIdx; /* one kernel runs at a time */
#define BURIN_SHARED unsigned char *const shared = (unsigned char *)burin_gpu_shared()
#define BURIN_BARRIER() burin_gpu_barrier(__LINE__)
#define BURIN_WARP_BARRIER() burin_gpu_warp_barrier(__LINE__)
/* The thread's own index, in blocks of nx * ny * … threads. */
#define BURIN_THREAD(nx, ny)             \
  const int number = burin_gpu_thread(); \
  const BurinIndex thread = {number % (nx), number / (nx) % (ny), number / ((nx) * (ny))}
#else
#define BURIN_PTX 1
#pragma nv_diag_suppress 177 // functions that no kernel calls
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define INT64_C(v) v##LL
#define UINT64_C(v) v##ULL
#define INT32_MIN (-2147483647 - 1)
#define INT32_MAX 2147483647
#define INT64_MAX 9223372036854775807LL
#define INT64_MIN (-INT64_MAX - 1)
#define UINT64_MAX 18446744073709551615ULL
#define BURIN_SHARED extern __shared__ __align__(128) unsigned char shared[]
#define BURIN_BARRIER() __syncthreads()
#define BURIN_WARP_BARRIER() __syncwarp()
#define BURIN_THREAD(nx, ny) const uint3 thread = threadIdx
#define burin_rt_fmod(a, b) fmod(a, b)
#define burin_rt_fmodf(a, b) fmodf(a, b)
#endif
#define BURIN_FLUSH 0 /* the device does, and the entry's mode of the CPU */
