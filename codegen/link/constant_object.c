/* ELF objects that hold one constant: the weights, written by hand so that hundreds of megabytes go
 * straight from the mapped model to the file, and what backends gather. */
#include <elf.h>
#include <stdio.h>
#include <string.h>

#include "codegen/link/link.h"
#include "runtime/abi.h"

enum { ALIGN = 64, RESERVE_ALIGN = 64 << 10 };

static int64_t align_up(int64_t v, int64_t a) { return (v + a - 1) / a * a; }

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

/* The null symbol and the constant, which is all of section 1. */
static bool put_symbols(FILE *f, bool wide, int64_t size) {
  const unsigned char info = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT);
  const Elf64_Sym syms[2] = {{0}, {1, info, STV_HIDDEN, 1, 0, (Elf64_Xword)size}};
  const Elf32_Sym narrow[2] = {{0}, {1, 0, (Elf32_Word)size, info, STV_HIDDEN, 1}};
  return wide ? put(f, syms, sizeof syms) : put(f, narrow, sizeof narrow);
}

/* `size` bytes that write_data writes, or their address space alone (NULL). */
typedef struct Constant {
  const char *symbol;
  int64_t size;
  bool (*write_data)(const void *user, FILE *f);
  const void *user;
} Constant;

static bool write_constant(const Constant *c, const Target *t, FILE *f) {
  const bool wide = t->pointer_bits == 64, reserve_only = !c->write_data;
  const int64_t size = c->size, sym_size = wide ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym),
                name = (int64_t)strlen(c->symbol) + 2;
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
  if (!reserve_only) ok = ok && c->write_data(c->user, f);
  ok = ok && put_symbols(f, wide, size) && put(f, "", 1) && put(f, c->symbol, (size_t)name - 1);
  ok = ok && put(f, section_names, sizeof section_names) && put_zeros(f, sections - end);
  for (int i = 0; i < N_SECTIONS; i++) ok = ok && put_section(f, wide, &table[i]);
  return ok;
}

static bool put_weights(const void *user, FILE *f) {
  const WeightLayout *const w = user;
  return w->bytes > 0 ? weights_write_raw(w, f) : put_zeros(f, ALIGN);
}

bool weights_write_object(const WeightLayout *w, const Target *t, const char *symbol,
                          bool reserve_only, FILE *f) {
  const int64_t bytes = w->bytes > 0 ? w->bytes : ALIGN;
  const Constant c = {
      .symbol = symbol,
      .size = reserve_only ? align_up(bytes + BURIN_WEIGHTS_TAIL, RESERVE_ALIGN) : bytes,
      .write_data = reserve_only ? NULL : put_weights,
      .user = w};
  return write_constant(&c, t, f);
}

static bool put_gathered(const void *user, FILE *f) {
  const Gathered *const g = user;
  return put(f, g->data, g->bytes);
}

bool gathered_write_object(const Gathered *g, const Target *t, FILE *f) {
  return write_constant(&(Constant){g->symbol, (int64_t)g->bytes, put_gathered, g}, t, f);
}
