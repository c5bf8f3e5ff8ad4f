/* A program that has every kind of step: a loop with a condition, copies of views, a symbol that data
 * give, a branch. In parts, between which a test puts its own: the interpreter's (test_loop.c), and
 * that of compiled programs (test_codegen_program.c). */
#pragma once

#define CONTROL_BUFFERS              \
  "  symbol $n 0\n"                  \
  "  symbol $i 0 runtime bound 10\n" \
  "  symbol $t 0 runtime bound 77\n" \
  "  symbol $k 0 runtime bound 10\n" \
  "  b0 : i64[1] = input 0\n"        \
  "  b1 : i64[1] = arena\n"          \
  "  b2 : bool[1] = arena\n"         \
  "  b3 : i64[10] = output 0\n"      \
  "  b4 : i64[10] = arena\n"         \
  "  b5 : i64[1] = view b4 at (3)\n"

#define CONTROL_KERNELS                                \
  "  kernel k0_set {\n"                                \
  "    param b0 : i64[1] write align 8\n"              \
  "    param b1 : bool[1] write align 1\n"             \
  "    param b2 : i64[10] write align 8\n"             \
  "    param b3 : i64[10] write align 8\n"             \
  "    b0[0] = 0\n"                                    \
  "    b1[0] = true\n"                                 \
  "    for z in 0..10 vector {\n"                      \
  "      b2[z] = 0\n"                                  \
  "      b3[z] = 0\n"                                  \
  "    }\n"                                            \
  "  }\n"                                              \
  "  kernel k1_body flops $n*3 {\n"                    \
  "    param b0 : i64[1] readwrite align 8\n"          \
  "    param b1 : bool[1] write align 1\n"             \
  "    param b2 : i64[10] readwrite align 8\n"         \
  "    param b3 : i64[1] read align 8\n"               \
  "    param b4 : i64[4] readwrite scratch align 64\n" \
  "    for s in 0..4 {\n"                              \
  "      b4[s] = $i\n"                                 \
  "    }\n"                                            \
  "    b2[$i] = b0[0]\n"                               \
  "    b0[0] = b0[0] + b4[3]\n"                        \
  "    b1[0] = b0[0] < b3[0]\n"                        \
  "  }\n"                                              \
  "  kernel k2_last {\n"                               \
  "    param b0 : i64[10] write align 8\n"             \
  "    b0[9] = $t\n"                                   \
  "    b0[8] = $k\n"                                   \
  "  }\n"

/* The steps, up to what the symbols are used for. */
#define CONTROL_STEPS                             \
  "  steps {\n"                                   \
  "    call k0_set(b1, b2, b4, b3)\n"             \
  "    loop cond b2 iter $i trips $t limit 9 {\n" \
  "      call k1_body(b1, b2, b4, b0)\n"          \
  "    }\n"                                       \
  "    copy b4 -> b3 count 4\n"                   \
  "    copy b5 -> b3 at (4) count 1\n"            \
  "    sym $k from b0 min 0 max 10\n"

#define CONTROL_END          \
  "    if b2 {\n"            \
  "      sym $t = 77\n"      \
  "    } else {\n"           \
  "      call k2_last(b3)\n" \
  "    }\n"                  \
  "  }\n"                    \
  "}\n"
