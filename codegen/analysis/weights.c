/* Weights: their places in one read-only section, and the ELF object that holds it, written by hand
 * so that hundreds of megabytes go straight from the mapped model to the file. Equal contents are
 * stored once. */
#define XXH_INLINE_ALL
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "codegen/analysis/program.h"
#include "runtime/abi.h"

enum { ALIGN = 64, RESERVE_ALIGN = 64 << 10 };

static int64_t data_bytes(const ConstData *d) { return d->count * dtype_bytes(d->dtype); }
static int64_t align_up(int64_t v, int64_t a) { return (v + a - 1) / a * a; }

typedef struct HashSlot {
  uint64_t hash;
  int slot; /* -1: empty */
} HashSlot;

static int find_equal(const WeightLayout *w, const HashSlot *table, int size, const ConstData *d,
                      uint64_t hash, int *at) {
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
    if (!b->data) continue; /* weights and defaults of inputs */
    const uint64_t hash = XXH3_64bits(b->data->data, (size_t)data_bytes(b->data));
    int at = 0;
    const int same = find_equal(&w, table, size, b->data, hash, &at);
    if (same >= 0) {
      w.offset[i] = w.slots.data[same].offset;
      continue;
    }
    w.offset[i] = align_up(w.bytes, ALIGN);
    w.bytes = w.offset[i] + (data_bytes(b->data) > 0 ? data_bytes(b->data)
                                                     : 1); /* empty ones need an address too */
    table[at] = (HashSlot){hash, w.slots.n};
    vec_push(scratch, &w.slots, (WeightSlot){b->data, w.offset[i]});
  }
  w.bytes =
      align_up(w.bytes, ALIGN); /* vector loads of the last element's neighbours stay inside */
  return w;
}

void weights_in_file(WeightLayout *w, const char *file) {
  static const char zeros[ALIGN];
  int64_t at = 0;
  XXH3_state_t x;
  XXH3_64bits_reset(&x);
  for (int i = 0; i < w->slots.n; i++) {
    const WeightSlot *const s = &w->slots.data[i];
    XXH3_64bits_update(&x, zeros, (size_t)(s->offset - at));
    XXH3_64bits_update(&x, s->data->data, (size_t)data_bytes(s->data));
    at = s->offset + data_bytes(s->data);
  }
  for (; at < w->bytes; at++) XXH3_64bits_update(&x, zeros, 1);
  const uint64_t hash = XXH3_64bits_digest(&x);
  w->external = true;
  w->file = file;
  w->hash = hash ? hash : 1;
}

static bool write_tail(const WeightLayout *w, FILE *f) {
  const uint64_t tail[BURIN_WEIGHTS_TAIL / 8] = {w->hash};
  return !w->external || fwrite(tail, sizeof tail, 1, f) == 1;
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
  return write_tail(w, f);
}

/* ---- ELF ---- */
static const char section_names[] =
    "\0.rodata.burin_weights\0.symtab\0.strtab\0.shstrtab\0.note.GNU-stack\0.bss.burin_weights";
enum { N_RODATA = 1, N_SYMTAB = 23, N_STRTAB = 31, N_SHSTRTAB = 39, N_STACK = 49, N_BSS = 65 };
enum { HEADER_BYTES = 64, N_SECTIONS = 6 };

/* What the header says of an architecture. */
static const struct {
  uint16_t machine;
  uint32_t flags;
} elf_rows[ARCH_COUNT] = {
    [ARCH_X86_64] = {EM_X86_64, 0},
    [ARCH_AARCH64] = {EM_AARCH64, 0},
    [ARCH_ARM] = {EM_ARM, EF_ARM_EABI_VER5},
};

static bool put(FILE *f, const void *data, size_t size) {
  return size == 0 || fwrite(data, size, 1, f) == 1;
}

static bool put_zeros(FILE *f, int64_t n) {
  static const char zeros[RESERVE_ALIGN];
  for (; n > RESERVE_ALIGN; n -= RESERVE_ALIGN)
    if (!put(f, zeros, RESERVE_ALIGN)) return false;
  return put(f, zeros, (size_t)n);
}

static bool put_header(FILE *f, const Target *t, int64_t sections) {
  if (t->pointer_bits == 64) {
    const Elf64_Ehdr h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                          .e_type = ET_REL,
                          .e_machine = elf_rows[t->arch].machine,
                          .e_version = EV_CURRENT,
                          .e_shoff = (Elf64_Off)sections,
                          .e_ehsize = sizeof h,
                          .e_shentsize = sizeof(Elf64_Shdr),
                          .e_shnum = N_SECTIONS,
                          .e_shstrndx = 4};
    return put(f, &h, sizeof h);
  }
  const Elf32_Ehdr h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                        .e_type = ET_REL,
                        .e_machine = elf_rows[t->arch].machine,
                        .e_version = EV_CURRENT,
                        .e_flags = elf_rows[t->arch].flags,
                        .e_shoff = (Elf32_Off)sections,
                        .e_ehsize = sizeof h,
                        .e_shentsize = sizeof(Elf32_Shdr),
                        .e_shnum = N_SECTIONS,
                        .e_shstrndx = 4};
  return put(f, &h, sizeof h) && put_zeros(f, HEADER_BYTES - (int64_t)sizeof h);
}

static bool put_section(FILE *f, bool wide, const Elf64_Shdr *s) {
  if (wide) return put(f, s, sizeof *s);
  const Elf32_Shdr n = {s->sh_name,
                        s->sh_type,
                        (Elf32_Word)s->sh_flags,
                        0,
                        (Elf32_Off)s->sh_offset,
                        (Elf32_Word)s->sh_size,
                        s->sh_link,
                        s->sh_info,
                        (Elf32_Word)s->sh_addralign,
                        (Elf32_Word)s->sh_entsize};
  return put(f, &n, sizeof n);
}

/* The null symbol and the weights, which are all of section 1. */
static bool put_symbols(FILE *f, bool wide, int64_t size) {
  const unsigned char info = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT);
  const Elf64_Sym syms[2] = {{0}, {1, info, STV_HIDDEN, 1, 0, (Elf64_Xword)size}};
  const Elf32_Sym narrow[2] = {{0}, {1, 0, (Elf32_Word)size, info, STV_HIDDEN, 1}};
  return wide ? put(f, syms, sizeof syms) : put(f, narrow, sizeof narrow);
}

bool weights_write_object(const WeightLayout *w, const Target *t, const char *symbol,
                          bool reserve_only, FILE *f) {
  const bool wide = t->pointer_bits == 64;
  const int64_t bytes = w->bytes > 0 ? w->bytes : ALIGN,
                size = reserve_only ? align_up(bytes + BURIN_WEIGHTS_TAIL, RESERVE_ALIGN) : bytes;
  const int64_t sym_size = wide ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym),
                name = (int64_t)strlen(symbol) + 2;
  const int64_t symbols = HEADER_BYTES + (reserve_only ? 0 : size),
                strings = symbols + 2 * sym_size;
  const int64_t names = strings + name, end = names + (int64_t)sizeof section_names,
                sections = align_up(end, 8);
  const Elf64_Shdr table[N_SECTIONS] = {
      {0},
      {reserve_only ? N_BSS : N_RODATA, reserve_only ? SHT_NOBITS : SHT_PROGBITS,
       reserve_only ? SHF_ALLOC | SHF_WRITE : SHF_ALLOC, 0, HEADER_BYTES, (Elf64_Xword)size, 0, 0,
       reserve_only ? RESERVE_ALIGN : ALIGN, 0},
      {N_SYMTAB, SHT_SYMTAB, 0, 0, (Elf64_Off)symbols, (Elf64_Xword)(2 * sym_size), 3, 1, 8,
       (Elf64_Xword)sym_size},
      {N_STRTAB, SHT_STRTAB, 0, 0, (Elf64_Off)strings, (Elf64_Xword)name, 0, 0, 1, 0},
      {N_SHSTRTAB, SHT_STRTAB, 0, 0, (Elf64_Off)names, sizeof section_names, 0, 0, 1, 0},
      {N_STACK, SHT_PROGBITS, 0, 0, (Elf64_Off)symbols, 0, 0, 0, 1, 0}};
  bool ok = put_header(f, t, sections);
  if (!reserve_only) ok = ok && (w->bytes > 0 ? weights_write_raw(w, f) : put_zeros(f, size));
  ok = ok && put_symbols(f, wide, size) && put(f, "", 1) && put(f, symbol, (size_t)name - 1);
  ok = ok && put(f, section_names, sizeof section_names) && put_zeros(f, sections - end);
  for (int i = 0; i < N_SECTIONS; i++) ok = ok && put_section(f, wide, &table[i]);
  return ok;
}
