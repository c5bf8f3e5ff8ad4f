/* Embeds the runtime objects. BURIN_RT_DIR is where the build put them. */
#include "runtime/embed/embed.h"

#define EMBED(sym, file)                                                                   \
  __asm__(".pushsection .rodata." #sym ",\"a\"\n.balign 16\n" #sym                         \
          "_begin:\n"                                                                      \
          ".incbin \"" BURIN_RT_DIR "/" file "\"\n" #sym "_end:\n.byte 0\n.popsection\n"); \
  extern const unsigned char sym##_begin[], sym##_end[]

EMBED(burin_embed_x86_64_lib, "burin_rt_x86_64.a");
EMBED(burin_embed_x86_64_prog, "burin_program_x86_64.o");
EMBED(burin_embed_aarch64_lib, "burin_rt_aarch64.a");
EMBED(burin_embed_aarch64_prog, "burin_program_aarch64.o");
EMBED(burin_embed_arm_lib, "burin_rt_arm.a");
EMBED(burin_embed_arm_prog, "burin_program_arm.o");
EMBED(burin_embed_cuda, "burin_cuda_x86_64.a");
EMBED(burin_embed_host, "burin_host_x86_64.a");
EMBED(burin_embed_libc, "burin_libc_x86_64.so");

#define PART(sym) {sym##_begin, sym##_end}
static const struct {
  const unsigned char *begin, *end;
} embedded[][BURIN_RT_PARTS] = {
    [ARCH_X86_64] = {[BURIN_RT_LIBRARY] = PART(burin_embed_x86_64_lib),
                     [BURIN_RT_PROGRAM] = PART(burin_embed_x86_64_prog),
                     [BURIN_RT_CUDA] = PART(burin_embed_cuda),
                     [BURIN_RT_STAND_IN] = PART(burin_embed_host),
                     [BURIN_RT_LIBC] = PART(burin_embed_libc)},
    [ARCH_AARCH64] = {[BURIN_RT_LIBRARY] = PART(burin_embed_aarch64_lib),
                      [BURIN_RT_PROGRAM] = PART(burin_embed_aarch64_prog)},
    [ARCH_ARM] = {[BURIN_RT_LIBRARY] = PART(burin_embed_arm_lib),
                  [BURIN_RT_PROGRAM] = PART(burin_embed_arm_prog)},
};

const unsigned char *burin_runtime_object(Arch arch, int kind, size_t *size) {
  *size = (size_t)(embedded[arch][kind].end - embedded[arch][kind].begin);
  return embedded[arch][kind].begin;
}
