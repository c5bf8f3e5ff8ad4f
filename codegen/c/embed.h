/* A file of the repository (BURIN_SOURCES) as text in the program: NAME_begin, which ends with a
 * zero. */
#pragma once

#define EMBED(name, file)                                                                    \
  __asm__(".pushsection .rodata." #name ",\"a\"\n" #name "_begin:\n.incbin \"" BURIN_SOURCES \
          "/" file "\"\n.byte 0\n.popsection\n");                                            \
  extern const char name##_begin[]
