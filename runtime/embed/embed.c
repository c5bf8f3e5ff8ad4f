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

static const struct {
  const unsigned char *begin, *end;
} embedded[][2] = {
    [ARCH_X86_64] = {{burin_embed_x86_64_lib_begin, burin_embed_x86_64_lib_end},
                     {burin_embed_x86_64_prog_begin, burin_embed_x86_64_prog_end}},
    [ARCH_AARCH64] = {{burin_embed_aarch64_lib_begin, burin_embed_aarch64_lib_end},
                      {burin_embed_aarch64_prog_begin, burin_embed_aarch64_prog_end}},
    [ARCH_ARM] = {{burin_embed_arm_lib_begin, burin_embed_arm_lib_end},
                  {burin_embed_arm_prog_begin, burin_embed_arm_prog_end}},
};

const unsigned char *burin_runtime_object(Arch arch, int kind, size_t *size) {
  *size = (size_t)(embedded[arch][kind].end - embedded[arch][kind].begin);
  return embedded[arch][kind].begin;
}
