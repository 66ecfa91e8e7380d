// Print the records of a run with exact decimal prices, from C++: the same tape that Python strategies read.
//
// While `bin/supervisor --demo` runs in another terminal:
//
//     .venv/bin/mdring header > mdring.h
//     g++ -std=c++17 -O2 -I. examples/cpp_reader.cpp -o cpp_reader
//     ./cpp_reader /dev/shm/mdring/demo [COUNT]
//
// ends after COUNT records, or with the run, and says how many records it was too slow for.
#include "mdring.h"

#include <cinttypes>
#include <cstdlib>
#include <string>
#include <vector>

static std::string decimal(int64_t scaled, int exponent) {
    char text[MDRING_DECIMAL_SIZE];
    return scaled == MDRING_UNDEFINED_PRICE ? "-" : mdring_decimal(text, scaled, static_cast<int8_t>(exponent));
}

// `row` is NULL for a record of the whole venue.
static std::string text(const mdring_record &record, const mdring_instrument *row) {
    int price = row ? row->price_exponent : 0, size = row ? row->size_exponent : 0;
    switch (record.kind) {
    case MDRING_KIND_TRADE: {
        auto &trade = reinterpret_cast<const mdring_trade &>(record);
        const char *side = trade.aggressor == MDRING_AGGRESSOR_BUY    ? "BUY"
                           : trade.aggressor == MDRING_AGGRESSOR_SELL ? "SELL"
                                                                      : "UNKNOWN";
        return std::string("TRADE ") + side + " " + decimal(trade.size, size) + " at " + decimal(trade.price, price);
    }
    case MDRING_KIND_BBO: {
        auto &bbo = reinterpret_cast<const mdring_bbo &>(record);
        return "BBO " + decimal(bbo.bid_size, size) + " at " + decimal(bbo.bid_price, price) + " / " +
               decimal(bbo.ask_size, size) + " at " + decimal(bbo.ask_price, price);
    }
    case MDRING_KIND_LEVEL: {
        auto &level = reinterpret_cast<const mdring_level &>(record);
        return std::string(level.side == MDRING_SIDE_BID ? "BID " : "ASK ") + decimal(level.size, size) + " at " +
               decimal(level.price, price);
    }
    default: return "kind " + std::to_string(record.kind);
    }
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: %s RUN_FOLDER [COUNT]\n", argv[0]), 2;
    const uint64_t most = argc > 2 ? strtoull(argv[2], nullptr, 10) : UINT64_MAX;
    mdring_tape tape;
    mdring_instruments instruments;
    mdring_result result = mdring_tape_attach(&tape, argv[1], MDRING_START_TAIL);
    if (result == MDRING_OK) result = mdring_instruments_attach(&instruments, argv[1]);
    if (result != MDRING_OK) return fprintf(stderr, "%s: %s\n", argv[1], mdring_result_text(result)), 1;

    std::vector<mdring_record> records(1024);
    for (uint64_t printed = 0; printed < most;) {
        const bool ended = mdring_tape_state(&tape) != MDRING_RUN_STATE_OPEN; // before the last look at the tape
        const uint64_t count = mdring_tape_poll(&tape, nullptr, records.data(), records.size());
        for (uint64_t i = 0; i < count && printed < most; i++, printed++) {
            const mdring_instrument *row = mdring_instrument_by_id(&instruments, records[i].instrument_id);
            const std::string name = row ? std::string(row->instrument, strnlen(row->instrument, sizeof row->instrument)) : "-";
            printf("%" PRIu64 " %s %s\n", records[i].seq, name.c_str(), text(records[i], row).c_str());
        }
        if (count == 0 && ended) break;
        if (count == 0 && !mdring_tape_wait(&tape, 500000000) && !mdring_run_is_alive(argv[1])) break;
    }
    printf("lost %" PRIu64 "\n", tape.reader.lost);
    mdring_instruments_detach(&instruments);
    mdring_tape_detach(&tape);
}
