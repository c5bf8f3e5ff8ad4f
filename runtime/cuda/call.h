/* Runtime functions on a device: how a call comes to it. A kernel of many threads does the work of one
 * function in phases, each a launch of its own. Texts of their own (runtime/ops/parts/NAME.c) say what one
 * thread does in one phase, with what stands in ops_NAME.c; results are those of rt_NAME:
 *
 *   int32_t rt_NAME_part(in, n_in, out, n_out, words, scratch, const RtTeam *team)
 *
 * No two threads write the same element in one phase, or read what another one writes, but for those
 * of a block around RT_BARRIER. What is wrong with a call as a whole every thread finds; in the first
 * phase only thread 0 is asked, in later ones any may say so. A function without parts is run by one
 * thread. */
#pragma once

typedef struct RtTeam {
  int64_t at, n; /* this thread, of how many */
  int32_t lane;  /* in its block */
  int32_t phase;
} RtTeam;

enum { RT_CALL_IN = 8, RT_CALL_OUT = 4, RT_CALL_DIMS = 40, RT_CALL_WORDS = 8, RT_BLOCK = 128 };
/* The one parameter of such a kernel. */
typedef struct RtCall {
  RtTensor in[RT_CALL_IN], out[RT_CALL_OUT]; /* their dims: the next ones of `dims`, in order */
  int64_t dims[RT_CALL_DIMS];
  int64_t words[RT_CALL_WORDS];
  void *scratch;
  int64_t *result; /* of the device: status, then sizes of all outs as the call left them */
  int64_t members;
  int32_t n_in, n_out, phase, last; /* last: the last phase */
} RtCall;
