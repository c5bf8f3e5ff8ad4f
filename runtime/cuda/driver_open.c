/* Opens CUDA's driver, and says what is wrong when it, or a call of it, fails. */
#include "runtime/cuda/device.h"

/* The host's libc: nothing else is needed of it. */
extern void *dlopen(const char *name, int flags);
extern void *dlsym(void *library, const char *name);

static const char names[][32] = {
#define X(field, name, parameters) name,
    CUDA_CALLS(X)
#undef X
};

bool device_fault(Device *d, const char *text, int64_t a, int64_t b) {
  if (!d->fault.text) d->fault = (Fault){text, a, b};
  return false;
}

const char *device_error_text(const Device *d, CuResult r) {
  const char *text = NULL;
  return d->cu.error_string(r, &text) == 0 && text ? text : "unknown error";
}

/* After these errors every further call in the context fails (CUDA driver API, CUresult). */
static bool is_lasting(CuResult r) {
  switch (r) {
    case 214: /* uncorrectable error of memory */
    case 700: /* illegal address */
    case 702: /* launch timed out */
    case 709: /* context is destroyed */
    case 710: /* assertion */
    case 714: /* stack, */
    case 715: /* instruction, */
    case 716: /* alignment, */
    case 717: /* address space, */
    case 718: /* program counter of a kernel */
    case 719: /* launch failed */
    case 999: return true;
    default: return false;
  }
}

bool device_check(Device *d, CuResult r, const char *what) {
  if (r == 0) return true;
  const char *const why = device_error_text(d, r);
  if (is_lasting(r)) d->lost = why;
  return device_fault(d, "%s: %s", TEXT_VALUE(what), TEXT_VALUE(why));
}

void device_report(const Device *d, BurinFailure *failure) {
  if (!failure) return;
  *failure =
      (BurinFailure){BURIN_E_DEVICE, -1, {TEXT_VALUE(d->fault.text), d->fault.a, d->fault.b}};
}

/* The functions, into the table. */
static bool find_calls(Device *d, void *library, int32_t version) {
  char *const table = (char *)&d->cu;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    void *const f = dlsym(library, names[i]);
    if (!f && version >= CU_OLDEST)
      return device_fault(d, "libcuda.so.1 has no %s: it is not a whole driver of CUDA",
                          TEXT_VALUE(names[i]), 0);
    if (f) __builtin_memcpy(table + i * sizeof f, &f, sizeof f);
  }
  if (version >= CU_OLDEST) return true;
  return device_fault(d,
                      "the driver of this GPU is for CUDA %u.%u: this program needs one for 11.4 "
                      "or newer",
                      version / 1000, version % 1000 / 10);
}

bool driver_open(Device *d) {
  enum { NOW = 2, NEVER_CLOSED = 0x1000 };
  int32_t version = 0, n = 0;
  void *const library = dlopen("libcuda.so.1", NOW | NEVER_CLOSED);
  if (!library)
    return device_fault(d,
                        "there is no driver of CUDA (libcuda.so.1): this program needs an NVIDIA "
                        "GPU and its driver",
                        0, 0);
  CuResult (*const ask)(int32_t *) =
      (CuResult(*)(int32_t *))(uintptr_t)dlsym(library, "cuDriverGetVersion");
  if (ask) ask(&version);
  if (!find_calls(d, library, version)) return false;
  const CuResult r = d->cu.init(0);
  if (r && r != CU_NO_DEVICE) return device_check(d, r, "CUDA's driver cannot be used");
  if (!r && !device_check(d, d->cu.device_count(&n), "counting GPUs")) return false;
  return n > 0 || device_fault(d, "there is no GPU that CUDA can use", 0, 0);
}
