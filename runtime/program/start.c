/* Entry of a standalone program: checks the CPU, reads the options, runs the model. */
#include "program.h"
#include "runtime/core/cpu.h"

extern const BurinModel burin_program_model;

#if defined(__x86_64__)
__asm__(
    ".text\n.globl _start\n.type _start,@function\n_start:\n"
    "xor %ebp, %ebp\n mov %rsp, %rbx\n and $-16, %rsp\n call program_stack\n test %rax, %rax\n"
    "jz 1f\n mov %rax, %rsp\n1: mov %rbx, %rdi\n call program_start\n hlt\n"
    ".size _start, .-_start\n");
#elif defined(__aarch64__)
__asm__(
    ".text\n.globl _start\n.type _start,%function\n_start:\n"
    "mov x29, #0\n mov x30, #0\n mov x19, sp\n and sp, x19, #-16\n bl program_stack\n"
    "cbz x0, 1f\n mov sp, x0\n1: mov x0, x19\n bl program_start\n"
    ".size _start, .-_start\n");
#else
__asm__(
    ".text\n.globl _start\n.type _start,%function\n_start:\n"
    "mov r11, #0\n mov lr, #0\n mov r4, sp\n bic sp, sp, #15\n bl program_stack\n cmp r0, #0\n"
    "beq 1f\n mov sp, r0\n1: mov r0, r4\n bl program_start\n"
    ".size _start, .-_start\n");
#endif

/* Top of a stack of our own, so that the system's limit (ulimit -s) says nothing about models;
 * NULL: there is none. The page below it may not be touched. */
__attribute__((used)) void *program_stack(void) {
  enum { STACK = 16 << 20, GUARD = 64 << 10, NORESERVE = 0x4000 };
  const long p = sys_call(NR_mmap, 0, STACK, 3 /* rw */, 0x22 | NORESERVE, -1, 0);
  if (p < 0 && p > -4096) return NULL;
  sys_call(NR_mprotect, p, GUARD, 0, 0, 0, 0);
  return (char *)p + STACK;
}

static uint64_t aux_value(const uintptr_t *aux, uintptr_t key) {
  for (; aux[0]; aux += 2)
    if (aux[0] == key) return aux[1];
  return 0;
}

static bool cpu_suffices(Program *p, const uintptr_t *aux) {
  const uint64_t have = burin_rt_cpu_features(aux_value(aux, 16), aux_value(aux, 26));
  const uint64_t needed = p->model->cpu_features, missing = needed & ~have;
  const uint64_t denied = missing ? 0 : burin_rt_cpu_denied(needed);
  if (denied)
    out_format(
        &p->err,
        "%s: error: the system does not allow %s, needed by this program (compiled for %s)\n",
        p->self, burin_rt_cpu_feature_name(denied), p->model->target);
  if (!missing) return !denied;
  out_format(&p->err, "%s: error: this CPU lacks %s, needed by this program (compiled for %s)\n",
             p->self, burin_rt_cpu_feature_name(missing), p->model->target);
  return false;
}

static int run(Program *p, int argc, char **argv, const uintptr_t *aux) {
  if (!options_parse(p, argc, argv)) return EXIT_USAGE;
  if (p->help) return show_help(p), 0;
  if (p->info) return show_info(p), 0;
  if (!cpu_suffices(p, aux)) return EXIT_MODEL;
  return run_model(p);
}

/* Files that are opened must not get the numbers of closed standard ones. The read end of nothing
 * stands in for those that are written, so that writing fails. */
static void fill_descriptors(void) {
  for (int fd = 0; fd < 3; fd++) {
    const long copy = sys_call(NR_dup, fd, 0, 0, 0, 0, 0);
    if (copy >= 0)
      sys_close((int)copy);
    else
      sys_call(NR_openat, SYS_AT_FDCWD, (long)"/dev/null", fd ? SYS_O_RDONLY : SYS_O_WRONLY, 0, 0,
               0);
  }
}

static void ignore_signal(int signal) { /* struct sigaction of the kernel: SIG_IGN first */
  const long action[8] = {1};
  sys_call(NR_rt_sigaction, signal, (long)action, 0, 8, 0, 0);
}

/* What was printed must have arrived. */
static int printed(Program *p, int status) {
  out_flush(&p->out);
  if (!p->out.error || (status && status != EXIT_MISMATCH)) return status;
  const char *reason = outfile_reason(p->out.error);
  program_error(p, "cannot write to the standard output: %s", reason ? reason : "error");
  return EXIT_OUTPUT;
}

__attribute__((used)) _Noreturn void program_start(uintptr_t *stack) {
  const int argc = (int)stack[0];
  char **argv = (char **)(stack + 1);
  uintptr_t *aux = stack + argc + 2;
  while (*aux++) {
  } /* environment */
  Program *p = sys_alloc(sizeof *p);
  if (!p) sys_exit(EXIT_MODEL);
  p->model = &burin_program_model;
  p->self = argc > 0 ? argv[0] : "model";
  p->out.fd = 1;
  p->err.fd = 2;
  fill_descriptors();
  ignore_signal(25); /* SIGXFSZ: the write fails instead */
  const int status = printed(p, run(p, argc, argv, aux));
  outputs_abort(p);
  out_flush(&p->err);
  sys_exit(status);
}
