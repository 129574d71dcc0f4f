// A plugin of qemu-user: how often each block of instructions ran. "count.so,out=FILE": at each call of umask it writes
// FILE.0, FILE.1, ..., a line for each block that ran since the last one, "address instructions times". The declarations
// are those of qemu-plugin.h that it needs (version 1).
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb*, int op, void* to, uint64_t value);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t,
                                          void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                   uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb*);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

struct block {
    uint64_t address, instructions, times;
    struct block* next;
};
static struct block* blocks;
static const char* path;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* tb) {
    struct block* const it = calloc(1, sizeof *it);
    it->address = qemu_plugin_tb_vaddr(tb);
    it->instructions = qemu_plugin_tb_n_insns(tb);
    // Several threads may translate.
    it->next = __atomic_load_n(&blocks, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&blocks, &it->next, it, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &it->times, 1);
}

// What ran since the last time.
static void written(qemu_plugin_id_t id, unsigned core, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                    uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    static int phase;
    if (number != 166) return;  // umask, as aarch64 numbers it
    char name[4096];
    snprintf(name, sizeof name, "%s.%d", path, phase++);
    FILE* const file = fopen(name, "w");
    if (!file) abort();
    for (struct block* it = blocks; it; it = it->next) {
        if (it->times) fprintf(file, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", it->address, it->instructions, it->times);
        it->times = 0;
    }
    fclose(file);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int argc,
                                                               char** argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4)) return 1;
    path = argv[0] + 4;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, written);
    return 0;
}
