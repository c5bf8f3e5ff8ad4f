/* What the texts of graphs and of programs have in common (frame_text.c, frame_parse.c). Internal to
 * ir/text/. */
#pragma once
#include "ir/loop/loop.h"
#include "ir/text/token.h"

enum { MAX_ID = 1 << 22 }; /* of values and constants */

/* ---- printing ---- */
typedef Vec(const ConstData *) ConstList;

void frame_ident(StrBuf *b, const char *s); /* a word, or in quotes */
/* The shortest decimal that reads back as v, as a double or rounded to f32. */
void frame_float(char t[40], double v, bool single);
void frame_type(const Model *m, const Value *v, StrBuf *b);
void frame_loc(const Loc *l, StrBuf *b);
void frame_keys(const ConstData *keys, StrBuf *b);             /* NULL: nothing */
void frame_list(const Model *m, const ListType *l, StrBuf *b); /* NULL: nothing */
void frame_head(const Model *m, StrBuf *b);                    /* `model …`, `todo …` */
void frame_in_place(const Model *m, StrBuf *b);                /* and the state */
void frame_assume(const Model *m, const DimAssume *a, StrBuf *b);
bool frame_is_small(const ConstData *c); /* its data stand where it is defined, `= [1,2]` */
void frame_elements(const ConstData *c, StrBuf *b);
/* Lines of data; without them `data none` where one is needed. */
void frame_data(const Model *m, const ConstList *l, bool with, StrBuf *b);
int64_t frame_data_bytes(const ConstList *l);
void frame_data_beside(const Model *m, const ConstList *l, TextStore *s, const char *name,
                       StrBuf *b);

/* ---- parsing: what stands behind the first word of each line. False: reported ---- */
/* model, todo, assume, in_place, weights or data: whether one of them stands here, and whether it is
 * right (reported). */
bool frame_parse_part(TextParser *p, bool *ok);
/* Symbols get their numbers in the order of their lines, though a bound may name a later one. */
bool frame_number_symbols(TextParser *p);
const Expr *frame_parse_expr(TextParser *p); /* a size; NULL: reported */
bool frame_parse_type(TextParser *p, Value *v);
bool frame_parse_loc(TextParser *p, const Loc **out);
ConstData *frame_const(TextParser *p,
                       int id); /* made when it is not known yet. -1: the next free one */
bool frame_const_type(TextParser *p, ConstData *c, const Value *v);
bool frame_parse_data(TextParser *p, ConstData *c);
/* ` keys [1,2]` behind an output, if it is there. */
bool frame_parse_keys(TextParser *p, const ConstData **keys);
/* ` list seq f32[-1,3]` behind the last input or output of the main graph, if it is there. */
bool frame_parse_list(TextParser *p, Graph *g, bool output);
/* Constants without data are zeros: a text without its trailer can still be checked and
 * transformed, but no code is made of it (Model.missing, zeros). */
bool frame_fill_unread(TextParser *p);
/* loop_parse.c: from `module` to its last brace; data of constants may follow. */
Module *module_parse_at(TextParser *p);
/* plan_parse.c: ` {plan=…}` behind a node, if it is there. */
bool plan_parse(TextParser *p, Node *n);
