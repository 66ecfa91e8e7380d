/* Preloaded into a process, writes down its futex system calls, or holds it up between being woken and what it does next.
 *
 * Native code of mdring calls the kernel through libc's syscall(), which this one takes the place of. For processes of
 * one thread, of which several may share a file.
 *
 * MDRING_FUTEX_LOG names a file of 64-bit words: how many FUTEX_WAKE calls there were, then for each two words, how many
 * sleepers it may wake and how many it woke.
 *
 * MDRING_FUTEX_SIGNALS names a folder of files, each named as a signal's number and anything else: "19.0", "19.1". FUTEX_WAIT
 * then ends by a wake-up alone, never by time; and whoever was woken takes a file, if there is one, and raises its signal
 * before it does anything else.
 */
#define _GNU_SOURCE
#include "atomics.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t *calls, room;
static const char *signals;
static long (*libc_syscall)(long, ...);

static uint64_t *map(const char *path) {
    struct stat status;
    int file = open(path, O_RDWR);
    if (file < 0 || fstat(file, &status) != 0) abort();
    void *words = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (words == MAP_FAILED) abort();
    room = (uint64_t)status.st_size / sizeof(uint64_t);
    return words;
}

__attribute__((constructor)) static void read_environment(void) {
    libc_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    signals = getenv("MDRING_FUTEX_SIGNALS");
    const char *log = getenv("MDRING_FUTEX_LOG");
    if (log != NULL) calls = map(log);
}

/* Removing a name is atomic: each file is one process's. */
static void raise_a_signal(void) {
    DIR *folder = opendir(signals);
    int taken = 0;
    if (folder == NULL) abort();
    for (struct dirent *file; taken == 0 && (file = readdir(folder)) != NULL;) {
        if (file->d_name[0] != '.' && unlinkat(dirfd(folder), file->d_name, 0) == 0) taken = atoi(file->d_name);
    }
    closedir(folder);
    if (taken != 0) raise(taken);
}

long syscall(long number, ...) {
    long words[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) words[i] = va_arg(arguments, long);
    va_end(arguments);
    long call = number == SYS_futex ? words[1] & FUTEX_CMD_MASK : -1;
    bool waits = call == FUTEX_WAIT || call == FUTEX_WAIT_BITSET, wakes = call == FUTEX_WAKE || call == FUTEX_WAKE_BITSET;
    if (signals != NULL && waits) words[3] = 0;
    long result = libc_syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    if (signals != NULL && waits && result == 0) raise_a_signal();
    if (calls != NULL && wakes) {
        uint64_t count = load_relaxed_u64(calls);
        if (2 * count + 3 > room) abort();
        store_relaxed_u64(calls + 2 * count + 1, (uint64_t)words[2]);
        store_relaxed_u64(calls + 2 * count + 2, (uint64_t)result);
        store_release_u64(calls, count + 1);
    }
    return result;
}
