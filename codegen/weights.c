/* Weights: their places in one read-only section, and the ELF object that holds it, written by hand so that
 * hundreds of megabytes go straight from the mapped model to the file. Equal contents are stored once. */
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "codegen/program.h"

enum { ALIGN = 64, RESERVE_ALIGN = 64 << 10 };

static int64_t data_bytes(const ConstData *d) { return d->count * dtype_bytes(d->dtype); }
static int64_t align_up(int64_t v, int64_t a) { return (v + a - 1) / a * a; }

typedef struct HashSlot {
  uint64_t hash;
  int slot; /* -1: empty */
} HashSlot;

static int find_equal(const WeightLayout *w, const HashSlot *table, int size, const ConstData *d, uint64_t hash, int *at) {
  int i = (int)(hash & (uint64_t)(size - 1));
  for (; table[i].slot >= 0; i = (i + 1) & (size - 1)) {
    const ConstData *const other = w->slots.data[table[i].slot].data;
    if (table[i].hash == hash && data_bytes(other) == data_bytes(d) &&
        memcmp(other->data, d->data, (size_t)data_bytes(d)) == 0)
      return table[i].slot;
  }
  *at = i;
  return -1;
}

WeightLayout weights_layout(const Module *m, Arena *scratch) {
  WeightLayout w = {.offset = ARENA_ARRAY(scratch, int64_t, m->buffers.n + 1)};
  int size = 64;
  while (size < m->buffers.n * 2) size *= 2;
  HashSlot *const table = ARENA_ARRAY(scratch, HashSlot, size);
  for (int i = 0; i < size; i++) table[i].slot = -1;
  for (int i = 0; i < m->buffers.n; i++) {
    const Buffer *const b = &m->buffers.data[i];
    w.offset[i] = -1;
    if (b->kind != BUF_WEIGHT || !b->data) continue;
    const uint64_t hash = XXH3_64bits(b->data->data, (size_t)data_bytes(b->data));
    int at = 0;
    const int same = find_equal(&w, table, size, b->data, hash, &at);
    if (same >= 0) {
      w.offset[i] = w.slots.data[same].offset;
      continue;
    }
    w.offset[i] = align_up(w.bytes, ALIGN);
    w.bytes = w.offset[i] + (data_bytes(b->data) > 0 ? data_bytes(b->data) : 1); /* empty ones need an address too */
    table[at] = (HashSlot){hash, w.slots.n};
    vec_push(scratch, &w.slots, (WeightSlot){b->data, w.offset[i]});
  }
  w.bytes = align_up(w.bytes, ALIGN); /* vector loads of the last element's neighbours stay inside */
  return w;
}

bool weights_write_raw(const WeightLayout *w, FILE *f) {
  static const char zeros[ALIGN];
  int64_t at = 0;
  for (int i = 0; i <= w->slots.n; i++) {
    const int64_t next = i < w->slots.n ? w->slots.data[i].offset : w->bytes;
    for (; at < next; at += next - at < ALIGN ? next - at : ALIGN)
      if (!fwrite(zeros, (size_t)(next - at < ALIGN ? next - at : ALIGN), 1, f)) return false;
    if (i == w->slots.n) break;
    const ConstData *const d = w->slots.data[i].data;
    if (data_bytes(d) > 0 && fwrite(d->data, (size_t)data_bytes(d), 1, f) != 1) return false;
    at = next + data_bytes(d);
  }
  return true;
}

/* ---- ELF -------------------------------------------------------------------------------------------------- */
static const char section_names[] = "\0.rodata.burin_weights\0.symtab\0.strtab\0.shstrtab\0.note.GNU-stack\0.bss.burin_weights";
enum { N_RODATA = 1, N_SYMTAB = 23, N_STRTAB = 31, N_SHSTRTAB = 39, N_STACK = 49, N_BSS = 65 };

static int machine_of(const Target *t) {
  return t->arch == ARCH_X86_64 ? EM_X86_64 : t->arch == ARCH_AARCH64 ? EM_AARCH64 : EM_ARM;
}

/* One body for both classes: X is 32 or 64. */
#define WRITE_ELF(X)                                                                                              \
  static bool write_elf##X(const WeightLayout *w, const Target *t, const char *symbol, bool reserve, FILE *f) {     \
    const int64_t size = w->bytes > 0 ? w->bytes : ALIGN;                                                          \
    const int64_t data_at = 64, after = data_at + (reserve ? 0 : size);                                            \
    const size_t name = strlen(symbol) + 2;                                                                        \
    Elf##X##_Sym syms[2] = {{0}, {0}};                                                                             \
    syms[1].st_name = 1;                                                                                           \
    syms[1].st_info = ELF##X##_ST_INFO(STB_GLOBAL, STT_OBJECT);                                                    \
    syms[1].st_other = STV_HIDDEN;                                                                                 \
    syms[1].st_shndx = 1;                                                                                          \
    syms[1].st_size = (Elf##X##_Word)size;                                                                         \
    const int64_t strings = after + (int64_t)sizeof syms, sections = align_up(strings + (int64_t)name + (int64_t)sizeof section_names, 8); \
    Elf##X##_Ehdr h = {.e_ident = {0x7f, 'E', 'L', 'F', X == 64 ? ELFCLASS64 : ELFCLASS32, ELFDATA2LSB, EV_CURRENT}}; \
    h.e_type = ET_REL;                                                                                             \
    h.e_machine = (Elf##X##_Half)machine_of(t);                                                                    \
    h.e_version = EV_CURRENT;                                                                                      \
    h.e_flags = t->arch == ARCH_ARM ? 0x05000000 : 0; /* EABI 5 */                                                 \
    h.e_shoff = (Elf##X##_Off)sections;                                                                            \
    h.e_ehsize = sizeof h;                                                                                         \
    h.e_shentsize = sizeof(Elf##X##_Shdr);                                                                         \
    h.e_shnum = 6;                                                                                                 \
    h.e_shstrndx = 4;                                                                                              \
    Elf##X##_Shdr s[6] = {{0}};                                                                                    \
    s[1].sh_name = reserve ? N_BSS : N_RODATA;                                                                     \
    s[1].sh_type = reserve ? SHT_NOBITS : SHT_PROGBITS;                                                            \
    s[1].sh_flags = reserve ? SHF_ALLOC | SHF_WRITE : SHF_ALLOC;                                                   \
    s[1].sh_offset = (Elf##X##_Off)data_at;                                                                        \
    s[1].sh_size = (Elf##X##_Word)size;                                                                            \
    if (X == 64) s[1].sh_size = (Elf##X##_Off)size;                                                                \
    s[1].sh_addralign = reserve ? RESERVE_ALIGN : ALIGN;                                                           \
    if (reserve) s[1].sh_size = (Elf##X##_Off)align_up(size, RESERVE_ALIGN);                                       \
    s[2].sh_name = N_SYMTAB;                                                                                       \
    s[2].sh_type = SHT_SYMTAB;                                                                                     \
    s[2].sh_offset = (Elf##X##_Off)after;                                                                          \
    s[2].sh_size = sizeof syms;                                                                                    \
    s[2].sh_link = 3;                                                                                              \
    s[2].sh_info = 1;                                                                                              \
    s[2].sh_addralign = X / 8;                                                                                     \
    s[2].sh_entsize = sizeof syms[0];                                                                              \
    s[3].sh_name = N_STRTAB;                                                                                       \
    s[3].sh_type = SHT_STRTAB;                                                                                     \
    s[3].sh_offset = (Elf##X##_Off)strings;                                                                        \
    s[3].sh_size = (Elf##X##_Off)name;                                                                             \
    s[3].sh_addralign = 1;                                                                                         \
    s[4].sh_name = N_SHSTRTAB;                                                                                     \
    s[4].sh_type = SHT_STRTAB;                                                                                     \
    s[4].sh_offset = (Elf##X##_Off)(strings + (int64_t)name);                                                      \
    s[4].sh_size = sizeof section_names;                                                                           \
    s[4].sh_addralign = 1;                                                                                         \
    s[5].sh_name = N_STACK;                                                                                        \
    s[5].sh_type = SHT_PROGBITS;                                                                                   \
    s[5].sh_offset = (Elf##X##_Off)after;                                                                          \
    s[5].sh_addralign = 1;                                                                                         \
    static const char zeros[ALIGN];                                                                                \
    bool ok = fwrite(&h, sizeof h, 1, f) == 1 && (sizeof h == 64 || fwrite(zeros, 64 - sizeof h, 1, f) == 1);      \
    if (ok && !reserve) ok = w->bytes > 0 ? weights_write_raw(w, f) : fwrite(zeros, ALIGN, 1, f) == 1;             \
    ok = ok && fwrite(syms, sizeof syms, 1, f) == 1 && fputc(0, f) == 0 && fwrite(symbol, name - 1, 1, f) == 1 &&  \
         fwrite(section_names, sizeof section_names, 1, f) == 1;                                                   \
    const int64_t pad = sections - strings - (int64_t)name - (int64_t)sizeof section_names;                        \
    ok = ok && (pad == 0 || fwrite(zeros, (size_t)pad, 1, f) == 1);                                                \
    return ok && fwrite(s, sizeof s, 1, f) == 1;                                                                   \
  }
WRITE_ELF(64)
WRITE_ELF(32)

bool weights_write_object(const WeightLayout *w, const Target *t, const char *symbol, bool reserve_only, FILE *f) {
  return (t->pointer_bits == 64 ? write_elf64 : write_elf32)(w, t, symbol, reserve_only, f);
}
