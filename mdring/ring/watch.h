/* Watching a ring's cursor for an event loop, which waits for descriptors and cannot sleep on a futex.
 *
 * A thread of its own sleeps on the cursor as any blocked reader does (wait.h) and writes an eventfd when the cursor is
 * no longer what its owner, the event loop, has asked about. It needs no interpreter and takes no lock: whatever the
 * owner does, the thread passes wake-ups on at once (row P6).
 *
 * A batch costs one wake-up of the thread. After its answer it sleeps on the cursor again before anybody asks, since the
 * next question will be about that cursor; the owner then only stores the question. If the next batch comes first, the
 * owner is busy and finds the batch itself: the thread sleeps on the question instead, and a busy owner has no thread
 * beside it that wakes up for each batch.
 *
 * Both sides store, then have a full fence, then load what the other stores (row P5): the owner `asked`, then `parked`
 * and the cursor; the thread `parked`, then `asked`, which the kernel compares; and having seen the cursor, `asked`.
 */
#ifndef MDRING_WATCH_H
#define MDRING_WATCH_H

#include "wait.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

typedef struct {
    uint64_t *cursor; /* shared; mapped until mdring_watch_stop has returned */
    int event;        /* readable when the question is answered */
    pid_t process;
    pthread_t thread;
    uint64_t wanted;  /* the owner's: what the cursor was when it asked */
    uint64_t asked;   /* the owner's: how many questions so far, or MDRING_WATCH_STOP */
    uint64_t parked;  /* the thread's: it sleeps on `asked`, not on the cursor */
    uint64_t stopped; /* the thread's: it will touch nothing any more */
} mdring_watch;

static const uint64_t MDRING_WATCH_STOP = UINT64_MAX, MDRING_NEVER_NS = INT64_MAX;

static inline void mdring_watch_park(mdring_watch *watch, uint64_t answered) {
    store_release_u64(&watch->parked, 1);
    fence_full(); /* sync: P5 */
    mdring_futex_wait(&watch->asked, answered, MDRING_NEVER_NS);
    store_release_u64(&watch->parked, 0);
}

static inline void *mdring_watch_run(void *argument) {
    mdring_watch *watch = argument;
    uint64_t answered = 0, seen = load_acquire_u64(watch->cursor);
    bool woken = false;
    prctl(PR_SET_NAME, "mdring-watch");
    for (;;) {
        fence_full(); /* sync: P5 */
        uint64_t asked = load_acquire_u64(&watch->asked), newest = load_acquire_u64(watch->cursor);
        if (asked == MDRING_WATCH_STOP) break;
        bool moved = newest != seen;
        /* Woken though nothing has moved: the run is over, which the next question, too, is to be told. */
        if (asked == answered && (moved || woken)) {
            mdring_watch_park(watch, answered);
            woken = woken && !moved;
            continue;
        }
        if (asked != answered && (newest != load_relaxed_u64(&watch->wanted) || (woken && !moved))) {
            answered = asked;
            eventfd_write(watch->event, 1);
        }
        seen = newest;
        woken = mdring_cursor_wait(watch->cursor, seen, MDRING_NEVER_NS);
    }
    store_release_u64(&watch->stopped, 1);
    mdring_futex_wake_all(&watch->stopped);
    return NULL;
}

/* Start the thread, which gets none of the process's signals; 0, or the error's number. */
static inline int mdring_watch_start(mdring_watch *watch, uint64_t *cursor) {
    sigset_t all, before;
    *watch = (mdring_watch){.cursor = cursor, .process = getpid(), .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (watch->event < 0) return errno;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&watch->thread, NULL, mdring_watch_run, watch);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) close(watch->event);
    return error;
}

/* Ask for an answer when the cursor is no longer `seen`; false if it is not now, and there may be an answer nonetheless. */
static inline bool mdring_watch_ask(mdring_watch *watch, uint64_t seen) {
    store_relaxed_u64(&watch->wanted, seen);
    store_release_u64(&watch->asked, load_relaxed_u64(&watch->asked) + 1);
    fence_full(); /* sync: P5 */
    if (load_acquire_u64(&watch->parked)) mdring_futex_wake_all(&watch->asked);
    return load_acquire_u64(watch->cursor) == seen;
}

/* End the thread and close the eventfd. In a child made by fork there is no such thread. */
static inline void mdring_watch_stop(mdring_watch *watch) {
    if (watch->process == getpid()) {
        store_release_u64(&watch->asked, MDRING_WATCH_STOP);
        /* Again, should it have been about to sleep; others who sleep on the cursor find no news and sleep on. */
        while (!load_acquire_u64(&watch->stopped)) {
            mdring_futex_wake_all(&watch->asked);
            mdring_futex_wake_all(watch->cursor);
            mdring_futex_wait(&watch->stopped, 0, 1000000);
        }
        pthread_join(watch->thread, NULL);
    }
    close(watch->event);
}

#endif
