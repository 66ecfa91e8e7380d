/* Preloaded into a process, counts its FUTEX_WAKE system calls and the sleepers that they woke.
 *
 * Native code of mdring calls the kernel through libc's syscall(), which this one takes the place of. The counts are two
 * 64-bit words, calls and woken, in the file that MDRING_FUTEX_COUNTS names. For processes of one thread.
 */
#define _GNU_SOURCE
#include "atomics.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t *counts;
static long (*libc_syscall)(long, ...);

__attribute__((constructor)) static void open_counts(void) {
    libc_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    const char *path = getenv("MDRING_FUTEX_COUNTS");
    int file = path == NULL ? -1 : open(path, O_RDWR);
    if (file < 0) abort();
    counts = mmap(NULL, 2 * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counts == MAP_FAILED) abort();
}

long syscall(long number, ...) {
    long words[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) words[i] = va_arg(arguments, long);
    va_end(arguments);
    long result = libc_syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    if (number == SYS_futex && (words[1] & FUTEX_CMD_MASK) == FUTEX_WAKE) {
        if (result > 0) store_release_u64(counts + 1, load_relaxed_u64(counts + 1) + (uint64_t)result);
        store_release_u64(counts, load_relaxed_u64(counts) + 1);
    }
    return result;
}
