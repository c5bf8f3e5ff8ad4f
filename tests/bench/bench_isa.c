/* Hides instruction sets from the other runtimes, for tests/bench/bench.py --target x86-64-v2 and -v3:
 * they ask the CPUID instruction what the processor has and have no switch of their own for all
 * they use. Linux can make CPUID fault in a process (arch_prctl, ARCH_SET_CPUID) where processor
 * and hypervisor allow it (cpuid_fault in /proc/cpuinfo); the handler here then answers, less the
 * bits of what is newer than the level. Threads and libraries that come later inherit it. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { SET_CPUID = 0x1012 }; /* ARCH_SET_CPUID of asm/prctl.h */

/* Register bits of CPUID leaves 1, 7.0 and 7.1 (Intel SDM, volume 2, CPUID). */
#define BIT(n) (1u << (n))
enum {
  LEAF1_ECX_AVX = BIT(12) /* FMA */ | BIT(28) /* AVX */ | BIT(29) /* F16C */,
  LEAF7_EBX_AVX2 = BIT(3) | BIT(5) | BIT(8), /* BMI1, AVX2, BMI2 */
};
static const uint32_t leaf7_ebx_avx512 =
    BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const uint32_t leaf7_ecx_avx512 = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);
static const uint32_t leaf7_ecx_vector_aes = BIT(8) | BIT(9) | BIT(10);
static const uint32_t leaf7_edx_newer =
    BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25);
static const uint32_t leaf71_eax_newer =
    BIT(4) | BIT(5) | BIT(21) | BIT(23); /* VNNI, BF16, AMX, IFMA */

static int hidden_level; /* x86-64-v3 or -v2: what remains */

static void hide(uint32_t leaf, uint32_t sub, uint32_t r[4]) {
  if (leaf == 1 && hidden_level < 3) r[2] &= ~(uint32_t)LEAF1_ECX_AVX;
  if (leaf == 7 && sub == 0) {
    r[1] &= ~leaf7_ebx_avx512;
    r[2] &= ~leaf7_ecx_avx512;
    r[3] &= ~leaf7_edx_newer;
    if (hidden_level < 3) {
      r[1] &= ~(uint32_t)LEAF7_EBX_AVX2;
      r[2] &= ~leaf7_ecx_vector_aes;
    }
  }
  if (leaf == 7 && sub == 1) r[0] &= ~leaf71_eax_newer;
}

static void answer(int sig, siginfo_t *info, void *context) {
  (void)info;
  greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint8_t *at = (const uint8_t *)g[REG_RIP];
  if (at[0] != 0x0f || at[1] != 0xa2) { /* not CPUID: a real fault, met again without us */
    signal(sig, SIG_DFL);
    return;
  }
  uint32_t r[4] = {(uint32_t)g[REG_RAX], 0, (uint32_t)g[REG_RCX], 0};
  const uint32_t leaf = r[0], sub = r[2];
  syscall(SYS_arch_prctl, SET_CPUID, 1);
  __asm__ volatile("cpuid" : "+a"(r[0]), "=b"(r[1]), "+c"(r[2]), "=d"(r[3]));
  syscall(SYS_arch_prctl, SET_CPUID, 0);
  hide(leaf, sub, r);
  g[REG_RAX] = r[0], g[REG_RBX] = r[1], g[REG_RCX] = r[2], g[REG_RDX] = r[3];
  g[REG_RIP] += 2;
}

/* From now on this thread, and those it starts, see a processor of x86-64-v`level` (2 or 3). 0:
 * done; -1: not possible here. */
int bench_hide_isa(int level) {
  struct sigaction act;
  memset(&act, 0, sizeof act);
  act.sa_sigaction = answer;
  act.sa_flags = SA_SIGINFO | SA_NODEFER;
  hidden_level = level;
  if (sigaction(SIGSEGV, &act, NULL)) return -1;
  return syscall(SYS_arch_prctl, SET_CPUID, 0) ? -1 : 0;
}
