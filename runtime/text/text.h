/* Strings at run time. A model computes with numbers of strings: equal strings have equal numbers,
 * so that what only moves or compares them is the code of 64-bit integers. Constant strings have
 * the numbers 0, 1 … in the order of their bytes (0 is the empty one) and stand in a table that the
 * compiler writes; others get the next numbers when they are made, and lie in the caller's heap
 * until its next run. Freestanding; also linked into burin for its interpreters. */
#pragma once
#include <stdbool.h>
#include "runtime/abi.h"

#ifndef TEXT_FN
#define TEXT_FN /* `static inline` where all of it is one file (codegen/c) */
#endif

/* ---- heap.c: memory that grows, given back as a whole ---- */
/* Forgets all that lies in it: a run begins. */
TEXT_FN void burin_rt_heap_begin(BurinHeap *h);
/* 16-aligned; NULL: there is no more. */
TEXT_FN void *heap_alloc(BurinHeap *h, uint64_t bytes);
enum { HEAP_TENSOR_ALIGN = 64 };
/* For tensors: aligned to that. */
TEXT_FN void *heap_tensor(BurinHeap *h, uint64_t bytes);
/* A buffer at *address with *room bytes gets room for count elements of `size` bytes, of which the
 * first `keep` stay as they are. One that was never larger is left where it is, else it gets twice
 * as much, so that what grows by and by takes time in proportion to its size. A status. */
TEXT_FN int32_t burin_rt_room(BurinHeap *h, int64_t *address, int64_t *room, int64_t count,
                              int64_t keep, int32_t size);

/* ---- strings.c ---- */
/* Bytes, behind which a 0 stands that is not counted. */
typedef struct TextView {
  const char *bytes;
  uint64_t length;
} TextView;

/* The table of constants, of 32-bit words: how many, slots (a power of two), where each begins and
 * the last ends (from the table's begin, with the 0 behind each), slots of numbers + 1 or 0 by
 * text_hash, then the bytes. */
enum { TABLE_COUNT, TABLE_SLOTS, TABLE_STARTS };

static inline uint32_t text_hash(const char *s, uint64_t n) { /* FNV-1a */
  uint32_t h = 2166136261u;
  for (uint64_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 16777619u;
  return h;
}

/* What functions of strings get as their scratch, and as their last input. */
typedef struct Strings {
  BurinHeap *heap;
  const uint32_t *table;
} Strings;

static inline Strings strings_of(const RtTensor *table, void *heap) {
  const Strings s = {(BurinHeap *)heap, (const uint32_t *)table->data};
  return s;
}

/* The string of a number; a number that is none is an empty string. */
TEXT_FN TextView strings_get(const Strings *s, int64_t number);
/* The number of a string, copied where it is new; -1: no memory. */
TEXT_FN int64_t strings_put(const Strings *s, TextView t);
/* Order of bytes, as of code points: negative, 0, positive. */
TEXT_FN int text_compare(TextView a, TextView b);

/* ---- runtime functions (RtOpFn): the last input is the table, scratch is the heap ---- */
/* out 0 (i64): numbers of in 0, an array of `const char *` */
TEXT_FN int32_t rt_strings_in(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                              const int64_t *w, void *scratch);
/* out 0: an array of `const char *`, of numbers in 0; they live until the heap's next run */
TEXT_FN int32_t rt_strings_out(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                               const int64_t *w, void *scratch);
/* StringConcat (ONNX 20): in 0 and 1 broadcast to out 0 */
TEXT_FN int32_t rt_string_concat(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                 const int64_t *w, void *scratch);
/* StringSplit (20): in 0 at the delimiter in 1 (empty: runs of spaces), at most w[0] times (-1:
 * always). out 0: pieces, filled up with "" to the most; out 1: how many. */
TEXT_FN int32_t rt_string_split(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                const int64_t *w, void *scratch);
/* StringNormalizer (10): without stopwords (in 1), in case w[0] (0 as it is, 1 lower, 2 upper);
 * w[1]: stopwords in their own case. out 0 has at least one element. */
TEXT_FN int32_t rt_string_normalize(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                    const int64_t *w, void *scratch);
/* out 0 (i64): how many different strings of in 0 stand before it in the order of bytes */
TEXT_FN int32_t rt_string_ranks(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                const int64_t *w, void *scratch);
/* RegexFullMatch (20): in 1 is the program that text/regex of the compiler makes (u32 words) */
TEXT_FN int32_t rt_regex_full_match(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                    const int64_t *w, void *scratch);
/* Tokenizer of com.microsoft: in 1 is a program as above, in 2 what is filled up with, and the marks
 * at the ends. Tokens are its matches (w[0] 0) or what stands between them (1), if they have at
 * least w[1] code points; w[2]: marks around those of a string, if any string has a token. out 0: in 0's dims, and tokens. */
TEXT_FN int32_t rt_tokenize(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                            const int64_t *w, void *scratch);
/* MurmurHash3 of com.microsoft: the 32-bit hash, seed w[0], of each string of in 0. */
TEXT_FN int32_t rt_text_hash(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                             const int64_t *w, void *scratch);
/* Cast to a number: out 0 of any type; a string that is no number is an error. */
TEXT_FN int32_t rt_string_to_number(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                    const int64_t *w, void *scratch);
/* Cast of numbers: the shortest decimal that reads as the same number. */
TEXT_FN int32_t rt_number_to_string(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                    const int64_t *w, void *scratch);

/* ---- sequences.c: runtime functions of lists (i64, one element); scratch is the heap ---- */
/* out 0: a list of copies of all inputs */
TEXT_FN int32_t rt_sequence_make(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                 const int64_t *w, void *scratch);
/* in 0 with in 1 at position in 2 (absent: at the end) */
TEXT_FN int32_t rt_sequence_insert(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                   const int64_t *w, void *scratch);
/* in 0 without the item at in 1 (absent: the last) */
TEXT_FN int32_t rt_sequence_erase(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                  const int64_t *w, void *scratch);
/* That of in 0; all others must have the same */
TEXT_FN int32_t rt_sequence_length(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                   const int64_t *w, void *scratch);
/* The item at in 1. w[0]: sets out 0's data, instead of writing there; w[1…]: its sizes, or -1 */
TEXT_FN int32_t rt_sequence_at(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                               const int64_t *w, void *scratch);
/* All items along axis w[1], a new one if w[2]. w[0]: as above */
TEXT_FN int32_t rt_sequence_join(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                 const int64_t *w, void *scratch);
/* The list of the caller's BurinList in 0, of kind w[0] (BURIN_SEQUENCE …), whose items have type
 * w[1], rank w[2] (-1: any) and the sizes w[3…] (-1: any). An optional that is empty is 0. */
TEXT_FN int32_t rt_sequence_in(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                               const int64_t *w, void *scratch);
/* out 0: BurinList of in 0, of kind w[0] and type w[1]. Of strings both have the table as last input */
TEXT_FN int32_t rt_sequence_out(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                const int64_t *w, void *scratch);
/* in 0, which must not be an empty optional */
TEXT_FN int32_t rt_sequence_get(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                const int64_t *w, void *scratch);
/* in 0 along axis w[0], in pieces of sizes in 1, each of its one size, or of 1 (absent; w[1]: they
 * keep the axis) */
TEXT_FN int32_t rt_sequence_split(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                                  const int64_t *w, void *scratch);

/* ---- decimal.c: exact for all floats ---- */
/* Reads all of t: decimal, "inf", "infinity", "nan" in any case, blanks around; rounded once, to
 * the float type (TensorProto.DataType; f32 for types without a format of their own). False: no
 * number. */
TEXT_FN bool decimal_read(TextView t, int32_t type, double *value);
enum { DECIMAL_MAX = 40 };
/* The fewest digits that read back as the same number of this type, with a point; scientific from
 * 1e16 on and below 1e-4. Returns the length. */
TEXT_FN int decimal_write(double v, int32_t type, char out[DECIMAL_MAX]);

/* ---- letter_case.c ---- */
/* Simple case mapping of Unicode of one code point. */
TEXT_FN uint32_t code_point_lower(uint32_t c);
TEXT_FN uint32_t code_point_upper(uint32_t c);
/* UTF-8 at s[0..n), n > 0: the code point and its bytes; a byte that is no UTF-8 is itself + 2^31. */
TEXT_FN uint32_t utf8_read(const char *s, uint64_t n, int *bytes);
TEXT_FN int utf8_write(uint32_t c, char out[4]); /* bytes; inverse of utf8_read */
