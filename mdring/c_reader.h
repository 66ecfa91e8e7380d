/* The consumer in C: attach to a run's segments, poll the tape, wait for it, look instruments up.
 *
 * The only part of the generated header that is written by hand (mdring/c_header.py puts it last): the constants,
 * structures and the protocol above it come from the modules of mdring that other processes run.
 *
 * Everything is mapped read-only and nothing is registered, so a consumer can neither slow nor corrupt anything. A
 * tape is one place on the tape: use it from one thread. Functions return 0 (MDRING_OK) or say what is wrong.
 */

typedef enum {
    MDRING_OK,
    MDRING_ABSENT,        /* there is no such run, or it is going up or down just now */
    MDRING_NOT_READY,     /* its creator has not finished the header */
    MDRING_NOT_A_SEGMENT, /* wrong magic, or a segment of another kind */
    MDRING_OTHER_VERSION, /* made by another layout version of mdring: generate the header anew */
    MDRING_OTHER_LAYOUT,  /* the same version, but another fingerprint: generate the header anew */
    MDRING_CUT_SHORT,     /* the file is shorter than its header says */
    MDRING_SYSTEM_ERROR   /* errno says which */
} mdring_result;

static inline const char *mdring_result_text(mdring_result result) {
    switch (result) {
    case MDRING_OK: return "ok";
    case MDRING_ABSENT: return "no such run";
    case MDRING_NOT_READY: return "the segment is not ready yet";
    case MDRING_NOT_A_SEGMENT: return "not the segment it should be";
    case MDRING_OTHER_VERSION: return "made by another layout version of mdring; generate mdring.h anew";
    case MDRING_OTHER_LAYOUT: return "made by another build of mdring; generate mdring.h anew";
    case MDRING_CUT_SHORT: return "the segment is cut short";
    case MDRING_SYSTEM_ERROR: return strerror(errno);
    }
    return "unknown result";
}

/* ---- segments ----------------------------------------------------------------------------------------- */

typedef struct {
    const mdring_segment_header *header;
    size_t length; /* bytes that are mapped */
} mdring_segment;

/* The staged handshake: the creator stores the version last, so whoever sees it sees the whole header. */
static inline mdring_result mdring_check_header(const mdring_segment_header *header, size_t length, uint64_t kind,
                                                uint64_t fingerprint) {
    uint64_t version = mdring_load_acquire_u64(&header->version);
    if (version == 0) return MDRING_NOT_READY;
    if (header->magic != MDRING_MAGIC) return MDRING_NOT_A_SEGMENT;
    if (version != MDRING_LAYOUT_VERSION) return MDRING_OTHER_VERSION;
    if (header->fingerprint != fingerprint) return MDRING_OTHER_LAYOUT;
    if (header->kind != kind) return MDRING_NOT_A_SEGMENT;
    if (header->size > length) return MDRING_CUT_SHORT;
    return MDRING_OK;
}

/* The path of a file of a run; false (ENAMETOOLONG) if it is longer than PATH_MAX. */
static inline bool mdring_path(char *path, const char *run_folder, const char *name) {
    int length = snprintf(path, PATH_MAX, "%s/%s", run_folder, name);
    if (length >= 0 && length < PATH_MAX) return true;
    errno = ENAMETOOLONG;
    return false;
}

static inline mdring_result mdring_map(int descriptor, mdring_segment *segment) {
    struct stat status;
    if (fstat(descriptor, &status) != 0) return MDRING_SYSTEM_ERROR;
    if ((size_t)status.st_size < MDRING_HEADER_SIZE) return MDRING_NOT_READY;
    segment->length = (size_t)status.st_size;
    void *base = mmap(NULL, segment->length, PROT_READ, MAP_SHARED, descriptor, 0);
    if (base == MAP_FAILED) return MDRING_SYSTEM_ERROR;
    segment->header = (const mdring_segment_header *)base;
    return MDRING_OK;
}

static inline void mdring_detach(mdring_segment *segment) {
    if (segment->header != NULL) munmap((void *)(uintptr_t)segment->header, segment->length);
    segment->header = NULL;
}

static inline mdring_result mdring_attach(mdring_segment *segment, const char *run_folder, const char *name,
                                          mdring_segment_kind kind, uint64_t fingerprint) {
    char path[PATH_MAX];
    segment->header = NULL;
    if (!mdring_path(path, run_folder, name)) return MDRING_SYSTEM_ERROR;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return errno == ENOENT ? MDRING_ABSENT : MDRING_SYSTEM_ERROR;
    mdring_result result = mdring_map(descriptor, segment);
    int error = errno;
    close(descriptor);
    errno = error;
    if (result == MDRING_OK) result = mdring_check_header(segment->header, segment->length, kind, fingerprint);
    if (result != MDRING_OK) mdring_detach(segment);
    return result;
}

/* ---- the tape ----------------------------------------------------------------------------------------- */

typedef struct {
    mdring_segment segment;
    mdring_ring ring;
    mdring_reader reader; /* reader.lost and reader.laps say exactly what this consumer was too slow for */
} mdring_tape;

typedef enum {
    MDRING_START_TAIL,  /* what comes from now on */
    MDRING_START_OLDEST /* all that the tape still has */
} mdring_start;

/* Attach to the tape of the run in `run_folder`, for example "/dev/shm/mdring/demo". */
static inline mdring_result mdring_tape_attach(mdring_tape *tape, const char *run_folder, mdring_start start) {
    memset(tape, 0, sizeof *tape);
    mdring_result result = mdring_attach(&tape->segment, run_folder, MDRING_TAPE_NAME, MDRING_SEGMENT_KIND_RING,
                                         MDRING_RECORD_FINGERPRINT);
    if (result != MDRING_OK) return result;
    const mdring_segment_header *header = tape->segment.header;
    if (header->slot_size != sizeof(mdring_record) || (header->slot_count & (header->slot_count - 1)) != 0) {
        mdring_detach(&tape->segment);
        return MDRING_OTHER_LAYOUT;
    }
    /* The ring's functions serve writers, too, hence no const; this mapping cannot be written to. */
    tape->ring.slots = (uint64_t *)((uintptr_t)header + MDRING_HEADER_SIZE);
    tape->ring.cursor = (uint64_t *)(uintptr_t)&header->cursor;
    tape->ring.slot_count = header->slot_count;
    tape->ring.slot_words = sizeof(mdring_record) / sizeof(uint64_t);
    tape->ring.flags_offset = offsetof(mdring_record, flags);
    tape->ring.last_flag = MDRING_FLAGS_LAST;
    tape->reader.next = start == MDRING_START_OLDEST ? mdring_resume_point(&tape->ring, 1)
                                                     : mdring_load_acquire_u64(tape->ring.cursor) + 1;
    return MDRING_OK;
}

static inline void mdring_tape_detach(mdring_tape *tape) { mdring_detach(&tape->segment); }

/* A filter: bit k of `kinds` lets kind k pass; byte i of `instruments` lets instrument i pass (NULL: all). Byte 0
 * stands for records of a whole venue. An id from `instrument_count` on passes: it is newer than the filter. */
static inline mdring_filter mdring_make_filter(uint64_t kinds, const uint8_t *instruments, uint64_t instrument_count) {
    mdring_filter filter;
    filter.kinds = kinds;
    filter.instruments = instruments;
    filter.instrument_count = instrument_count;
    filter.kind_offset = offsetof(mdring_record, kind);
    filter.instrument_offset = offsetof(mdring_record, instrument_id);
    return filter;
}

/* Copy what is there now into `out`, at most `room` records in whole event groups; returns how many. Never waits.
 *
 * `filter` may be NULL. A group that is larger than `room` comes in parts, and reader.partial says so. After a lap
 * reader.lost has risen, and the stream goes on at the begin of an event group. */
static inline uint64_t mdring_tape_poll(mdring_tape *tape, const mdring_filter *filter, mdring_record *out,
                                        uint64_t room) {
    return mdring_poll(&tape->ring, &tape->reader, filter, (uint64_t *)out, room);
}

/* Sleep (futex) until the next record is there; false after `timeout_ns`, or when a signal came. Who is woken wakes two
 * other consumers: the sequencer wakes no more than that. */
static inline bool mdring_tape_wait(const mdring_tape *tape, uint64_t timeout_ns) {
    return mdring_wait(&tape->ring, tape->reader.next, MDRING_IDLE_BLOCK, 0, timeout_ns);
}

/* Records on the tape that this consumer has not had yet. */
static inline uint64_t mdring_tape_lag(const mdring_tape *tape) {
    uint64_t end = mdring_load_acquire_u64(tape->ring.cursor) + 1;
    return end > tape->reader.next ? end - tape->reader.next : 0;
}

/* Whether the run was closed in order, or replaced by another one. A run whose supervisor was killed stays open until
 * it is replaced: ask mdring_run_is_alive, too. */
static inline mdring_run_state mdring_tape_state(const mdring_tape *tape) {
    return (mdring_run_state)mdring_load_acquire_u64(&tape->segment.header->state);
}

/* Whether the supervisor of the run lives: it holds the lock of its file, which ends with it however it ends. */
static inline bool mdring_run_is_alive(const char *run_folder) {
    char path[PATH_MAX];
    if (!mdring_path(path, run_folder, MDRING_LOCK_NAME)) return false;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return false;
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_RDLCK;
    lock.l_whence = SEEK_SET;
    bool asked = fcntl(descriptor, F_OFD_GETLK, &lock) == 0;
    close(descriptor);
    return asked && lock.l_type != F_UNLCK;
}

/* ---- instruments -------------------------------------------------------------------------------------- */

typedef struct {
    mdring_segment segment;
    const mdring_instrument *rows; /* by instrument id; row 0 is none */
} mdring_instruments;

static inline mdring_result mdring_instruments_attach(mdring_instruments *table, const char *run_folder) {
    mdring_result result = mdring_attach(&table->segment, run_folder, MDRING_INSTRUMENTS_NAME,
                                         MDRING_SEGMENT_KIND_INSTRUMENTS, MDRING_INSTRUMENT_FINGERPRINT);
    table->rows = NULL;
    if (result == MDRING_OK)
        table->rows = (const mdring_instrument *)((uintptr_t)table->segment.header + MDRING_HEADER_SIZE);
    return result;
}

static inline void mdring_instruments_detach(mdring_instruments *table) { mdring_detach(&table->segment); }

/* The highest instrument id in use. Rows are appended while the run goes on, and never change. */
static inline uint64_t mdring_instrument_count(const mdring_instruments *table) {
    return mdring_load_acquire_u64(&table->segment.header->cursor);
}

/* The row of an instrument; NULL for 0 (the venue as a whole) and for ids that are not in the table. */
static inline const mdring_instrument *mdring_instrument_by_id(const mdring_instruments *table, uint32_t id) {
    return id >= 1 && id <= mdring_instrument_count(table) ? &table->rows[id] : NULL;
}

/* ---- exact decimals ----------------------------------------------------------------------------------- */

enum { MDRING_DECIMAL_SIZE = 160 }; /* bytes that any number takes, NUL included */

/* `scaled * 10^exponent` as decimal text, exactly, with all its digits; `out` has MDRING_DECIMAL_SIZE bytes. */
static inline const char *mdring_decimal(char *out, int64_t scaled, int8_t exponent) {
    char digits[MDRING_DECIMAL_SIZE]; /* from the last one to the first */
    int count = 0, fraction = exponent < 0 ? -(int)exponent : 0;
    uint64_t rest = scaled < 0 ? 0 - (uint64_t)scaled : (uint64_t)scaled;
    for (int zeros = rest == 0 ? 0 : exponent; zeros > 0; zeros--) digits[count++] = '0';
    for (; rest != 0 || count <= fraction; rest /= 10) digits[count++] = (char)('0' + rest % 10);
    char *end = out;
    if (scaled < 0) *end++ = '-';
    while (count > 0) {
        *end++ = digits[--count];
        if (count == fraction && count > 0) *end++ = '.';
    }
    *end = '\0';
    return out;
}
