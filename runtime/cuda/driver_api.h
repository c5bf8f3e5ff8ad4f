/* What is used of CUDA's driver API, which is opened when a program runs (driver_open.c): by the
 * names that the library exports, whose suffixes say which version of a function they are.
 * Constants are those of cuda.h. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef int32_t CuResult;
typedef int32_t CuDevice;
typedef uint64_t CuAddress;
typedef struct CuContextObject *CuContext;
typedef struct CuModuleObject *CuModule;
typedef struct CuFunctionObject *CuFunction;
typedef struct CuStreamObject *CuStream;
typedef struct CuEventObject *CuEvent;
typedef struct CuGraphObject *CuGraph;
typedef struct CuGraphExecObject *CuGraphExec;

enum {
  CU_OLDEST = 11040, /* cuGraphInstantiateWithFlags */
  CU_OUT_OF_MEMORY = 2,
  CU_NO_DEVICE = 100,
  CU_CAPABILITY_MAJOR = 75,
  CU_CAPABILITY_MINOR = 76,
  CU_FUNCTION_MAX_DYNAMIC_SHARED = 8,
  CU_STREAM_NON_BLOCKING = 1,
  CU_EVENT_NO_TIMING = 2,
  CU_POINTER_MEMORY_TYPE = 2,
  CU_POINTER_DEVICE = 9,
  CU_MEMORY_UNKNOWN = 0,
  CU_MEMORY_OF_HOST = 1,
  CU_CAPTURE_THREAD_LOCAL = 1,
  CU_CAPTURE_RELAXED = 2
};
#define CU_STREAM_LEGACY ((CuStream)1) /* what NULL stands for in CUDA */

/* X(field, exported name, parameters) */
#define CUDA_CALLS(X)                                                                             \
  X(init, "cuInit", (uint32_t flags))                                                             \
  X(driver_version, "cuDriverGetVersion", (int32_t *version))                                     \
  X(error_string, "cuGetErrorString", (CuResult r, const char **text))                            \
  X(device_count, "cuDeviceGetCount", (int32_t *n))                                               \
  X(device_get, "cuDeviceGet", (CuDevice * device, int32_t i))                                    \
  X(device_attribute, "cuDeviceGetAttribute", (int32_t *value, int32_t attribute, CuDevice d))    \
  X(primary_retain, "cuDevicePrimaryCtxRetain", (CuContext * context, CuDevice d))                \
  X(primary_release, "cuDevicePrimaryCtxRelease_v2", (CuDevice d))                                \
  X(context_push, "cuCtxPushCurrent_v2", (CuContext context))                                     \
  X(context_pop, "cuCtxPopCurrent_v2", (CuContext * context))                                     \
  X(context_current, "cuCtxGetCurrent", (CuContext * context))                                    \
  X(context_device, "cuCtxGetDevice", (CuDevice * d))                                             \
  X(module_load, "cuModuleLoadData", (CuModule * module, const void *image))                      \
  X(module_unload, "cuModuleUnload", (CuModule module))                                           \
  X(module_function, "cuModuleGetFunction", (CuFunction * f, CuModule module, const char *name))  \
  X(function_set, "cuFuncSetAttribute", (CuFunction f, int32_t attribute, int32_t value))         \
  X(launch, "cuLaunchKernel",                                                                     \
    (CuFunction f, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz,  \
     uint32_t shared, CuStream s, void **args, void **extra))                                     \
  X(stream_create, "cuStreamCreate", (CuStream * s, uint32_t flags))                              \
  X(stream_destroy, "cuStreamDestroy_v2", (CuStream s))                                           \
  X(stream_wait, "cuStreamSynchronize", (CuStream s))                                             \
  X(stream_wait_event, "cuStreamWaitEvent", (CuStream s, CuEvent e, uint32_t flags))              \
  X(event_create, "cuEventCreate", (CuEvent * e, uint32_t flags))                                 \
  X(event_record, "cuEventRecord", (CuEvent e, CuStream s))                                       \
  X(event_wait, "cuEventSynchronize", (CuEvent e))                                                \
  X(event_elapsed, "cuEventElapsedTime", (float *ms, CuEvent from, CuEvent to))                   \
  X(event_destroy, "cuEventDestroy_v2", (CuEvent e))                                              \
  X(memory_alloc, "cuMemAlloc_v2", (CuAddress * p, size_t bytes))                                 \
  X(memory_free, "cuMemFree_v2", (CuAddress p))                                                   \
  X(memory_info, "cuMemGetInfo_v2", (size_t *free, size_t *total))                                \
  X(host_alloc, "cuMemHostAlloc", (void **p, size_t bytes, uint32_t flags))                       \
  X(host_free, "cuMemFreeHost", (void *p))                                                        \
  X(upload_async, "cuMemcpyHtoDAsync_v2",                                                         \
    (CuAddress to, const void *from, size_t bytes, CuStream s))                                   \
  X(download_async, "cuMemcpyDtoHAsync_v2", (void *to, CuAddress from, size_t bytes, CuStream s)) \
  X(copy_async, "cuMemcpyDtoDAsync_v2", (CuAddress to, CuAddress from, size_t bytes, CuStream s)) \
  X(pointer_attributes, "cuPointerGetAttributes",                                                 \
    (uint32_t n, int32_t *attributes, void **values, CuAddress p))                                \
  X(capture_begin, "cuStreamBeginCapture_v2", (CuStream s, int32_t mode))                         \
  X(capture_end, "cuStreamEndCapture", (CuStream s, CuGraph * graph))                             \
  X(graph_instantiate, "cuGraphInstantiateWithFlags",                                             \
    (CuGraphExec * exec, CuGraph graph, uint64_t flags))                                          \
  X(graph_launch, "cuGraphLaunch", (CuGraphExec exec, CuStream s))                                \
  X(graph_exec_destroy, "cuGraphExecDestroy", (CuGraphExec exec))                                 \
  X(graph_destroy, "cuGraphDestroy", (CuGraph graph))

typedef struct Driver {
#define X(field, name, parameters) CuResult(*field) parameters;
  CUDA_CALLS(X)
#undef X
} Driver;
