/* A consumer over the generated header, driven line by line through standard input; compiled as C and as C++.
 *
 *   attach FOLDER tail|oldest      ok, or what is wrong
 *   poll ROOM                      count next lost laps partial, then each record in hexadecimal
 *   filter KINDS ID,ID,... COUNT   ok; only these kinds (bits) and instruments, newer ones than COUNT too; "-": all
 *   wait MILLISECONDS              1 if a record is there, else 0
 *   about                          lag, state, alive
 *   drain                          reads until the run is closed, checks each record; delivered, lost, last seq
 *   instruments FOLDER             one line a row, then "end"
 *   decimal SCALED EXPONENT        the text
 */
#include "mdring.h"

#include <stdlib.h>

enum { ROOM = 4096, INSTRUMENTS = 64 };

static mdring_tape tape;
static mdring_filter filter;
static const mdring_filter *chosen = NULL;
static uint8_t wanted[INSTRUMENTS];
static mdring_record records[ROOM];
static char folder[4000];

static void do_attach(const char *start) {
    mdring_tape_detach(&tape);
    mdring_start from = strcmp(start, "oldest") == 0 ? MDRING_START_OLDEST : MDRING_START_TAIL;
    printf("%s\n", mdring_result_text(mdring_tape_attach(&tape, folder, from)));
}

static void print_record(const mdring_record *record) {
    const unsigned char *bytes = (const unsigned char *)record;
    for (size_t i = 0; i < sizeof *record; i++) printf("%02x", bytes[i]);
    printf("\n");
}

static void do_poll(uint64_t room) {
    uint64_t count = mdring_tape_poll(&tape, chosen, records, room);
    printf("%llu %llu %llu %llu %d\n", (unsigned long long)count, (unsigned long long)tape.reader.next,
           (unsigned long long)tape.reader.lost, (unsigned long long)tape.reader.laps, tape.reader.partial);
    for (uint64_t i = 0; i < count; i++) print_record(&records[i]);
}

static void do_filter(unsigned long long kinds, char *ids, uint64_t count) {
    bool all = strcmp(ids, "-") == 0;
    memset(wanted, 0, sizeof wanted);
    for (char *id = all ? NULL : strtok(ids, ","); id != NULL; id = strtok(NULL, ",")) wanted[atoi(id)] = 1;
    filter = mdring_make_filter(kinds, all ? NULL : wanted, count);
    chosen = &filter;
    printf("ok\n");
}

/* Every record says its seq in its price; whatever is missing in the sequence must have been counted as lost. */
static void do_drain(void) {
    uint64_t delivered = 0, due = tape.reader.next, lost = 0;
    for (;;) {
        bool closed = mdring_tape_state(&tape) != MDRING_RUN_STATE_OPEN;
        uint64_t count = mdring_tape_poll(&tape, NULL, records, 64);
        if (count > 0 && (records[count - 1].flags & MDRING_FLAGS_LAST) == 0) abort();
        for (uint64_t i = 0; i < count; i++) {
            const mdring_trade *trade = (const mdring_trade *)&records[i];
            if (trade->seq < due || trade->price != (int64_t)trade->seq || trade->trade_id != trade->seq) abort();
            lost += trade->seq - due;
            due = trade->seq + 1;
        }
        delivered += count;
        if (count == 0 && closed && mdring_tape_lag(&tape) == 0) break;
        if (count == 0) mdring_tape_wait(&tape, 100000000);
    }
    lost += tape.reader.next - due; /* a lap after the last record that was delivered */
    if (lost != tape.reader.lost) abort();
    printf("%llu %llu %llu\n", (unsigned long long)delivered, (unsigned long long)lost,
           (unsigned long long)tape.reader.next - 1);
}

static void do_instruments(void) {
    mdring_instruments table;
    mdring_result result = mdring_instruments_attach(&table, folder);
    if (result != MDRING_OK) {
        printf("%s\n", mdring_result_text(result));
        return;
    }
    for (uint32_t id = 0; id <= mdring_instrument_count(&table) + 1; id++) {
        const mdring_instrument *row = mdring_instrument_by_id(&table, id);
        if (row == NULL) continue;
        printf("%u %u %.*s %.*s %.*s %d %d\n", row->id, row->venue_id, (int)sizeof row->venue, row->venue,
               (int)sizeof row->instrument, row->instrument, (int)sizeof row->canonical_symbol, row->canonical_symbol,
               row->price_exponent, row->size_exponent);
    }
    printf("end\n");
    mdring_instruments_detach(&table);
}

int main(void) {
    char line[8192], word[256];
    char text[MDRING_DECIMAL_SIZE];
    unsigned long long number, count;
    long long scaled;
    int exponent;
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "attach %3999s %255s", folder, word) == 2) do_attach(word);
        else if (sscanf(line, "poll %llu", &number) == 1) do_poll(number);
        else if (sscanf(line, "filter %llu %255s %llu", &number, word, &count) == 3) do_filter(number, word, count);
        else if (sscanf(line, "wait %llu", &number) == 1) printf("%d\n", mdring_tape_wait(&tape, number * 1000000));
        else if (strcmp(line, "about\n") == 0)
            printf("%llu %d %d\n", (unsigned long long)mdring_tape_lag(&tape), mdring_tape_state(&tape),
                   mdring_run_is_alive(folder));
        else if (strcmp(line, "drain\n") == 0) do_drain();
        else if (sscanf(line, "instruments %3999s", folder) == 1) do_instruments();
        else if (sscanf(line, "decimal %lld %d", &scaled, &exponent) == 2)
            printf("%s\n", mdring_decimal(text, scaled, (int8_t)exponent));
        else return 2;
        fflush(stdout);
    }
    mdring_tape_detach(&tape);
    return 0;
}
