// The driver of the nearest-code search: which mode, which rows on which thread, what is decided again. It is compiled
// for any processor of the architecture; everything that depends on an instruction set is in level.cpp.
#include "search.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "codes.h"
#include "cost.h"
#include "memory.h"
#include "nearest.h"
#include "threads.h"

namespace lexel {
namespace {

constexpr int SHORTEST_LIST = 32;      // groups that a row's list holds; more for several neighbours,
constexpr int LONG_LIST = 1024;        // and so many where most data are in doubt
constexpr int64_t SAMPLE = 192;        // rows that modes are tried on
constexpr int64_t CHUNK_ROWS = 1024;   // rows that share memory for their lists, at least
constexpr int64_t TILE_ROWS = 192;     // rows that one thread takes at a time, at most,
constexpr int64_t TILE_STEP = 48;      // in steps of three vectors of 16 lanes
constexpr int64_t SPLIT_GROUPS = 64;   // groups, at least, where threads share groups out for want of rows

// What a search is for: to count what is in doubt, to try what a decision takes, or to answer.
enum Purpose { COUNT, TRIAL, ANSWER };

// How the rows of one search are cut up, and the groups shared out.
struct Cut {
    int64_t tile, tiles;  // rows of a tile, and how many tiles
    int splits;           // shares of the groups; 1 unless there are fewer tiles than threads
};

class Search {
public:
    Search(Problem& problem, const Choice& choice, int threads)
        : P(problem), how(choice), L(*choice.level), team(threads), scratch(size_t(threads)) {}

    void all() {
        find_centre(P, centre);
        groups = (P.k + GROUP - 1) / GROUP;
        capacity = shortest();
        Mode mode = first_mode();
        if (P.n >= 4 * SAMPLE) mode = probe(mode);
        // What one mode leaves undecided is searched again in float32, with the same lists.
        const int64_t lists = fits(mode) || fits(F32) ? LIST_BYTES : ALL_BYTES - BLOCK_BYTES - fine_bytes(mode);
        const int64_t chunk = std::max<int64_t>(CHUNK_ROWS, lists / (capacity * int64_t(sizeof(Entry))));
        undecided.clear();
        for (int64_t first = 0; first < P.n; first += chunk)
            search(mode, nullptr, first, std::min(chunk, P.n - first), ANSWER);
        if (mode != F32) {
            const std::vector<int32_t> again = std::move(undecided);
            undecided.clear();
            for (int64_t first = 0, n = int64_t(again.size()); first < n; first += chunk)
                search(F32, again.data() + first, 0, std::min(chunk, n - first), ANSWER);
        }
        if (!undecided.empty()) brute_force();
    }

private:
    Problem& P;
    const Choice& how;
    const Level& L;
    Team team;
    int64_t groups = 0;
    int capacity = 0;                         // of a row's list
    std::vector<float> centre;                // P.centre points here,
    std::vector<int32_t> order;               // and P.ids here once the codes are sorted
    std::vector<int32_t> anchors, undecided;  // undecided: rows
    std::atomic<int> failure{0};              // a status that a thread met

    Buffer<char> packed, finely_packed;
    Panels panels{}, fine_panels{};
    bool panels_held = false, fine_held = false;  // whether they hold every code, in panels.mode and in F32
    Buffer<float> best;
    Buffer<int32_t> count;
    Buffer<Entry> list;
    std::vector<Buffer<char>> scratch;  // of each thread

    Mode first_mode() const {
        if (how.tiles) return P.d <= 20 ? JOINT : SINGLE;
        return how.pairs && P.d > 3 ? PAIRS : F32;
    }

    int64_t bytes(Mode mode) const { return groups * L.panel_bytes(mode, P.d); }
    int64_t fine_bytes(Mode mode) const { return mode != F32 && bytes(F32) <= FINE_BYTES ? bytes(F32) : 0; }
    bool fits(Mode mode) const { return bytes(mode) + fine_bytes(mode) + LIST_BYTES <= ALL_BYTES; }  // all codes at once
    int shortest() const { return std::max(SHORTEST_LIST, 4 * P.topk); }

    // Tries modes on a sample of the rows, and returns the cheapest that leaves few enough groups in doubt. Where lists
    // overflow, they grow; where they are long, the codes are sorted if that can pay.
    Mode probe(Mode mode) {
        const int64_t sample = mode == F32 ? SAMPLE / 4 : SAMPLE;
        std::vector<int32_t> rows;
        for (int64_t i = 0; i < sample; i++) rows.push_back(int32_t(i * (P.n - 1) / (sample - 1)));
        bool sorted = false;
        for (;;) {
            const Counts c = search(mode, rows.data(), 0, sample, sorted ? TRIAL : COUNT);
            const double each = double(sample);
            const Trial trial = {double(c.full) / each, double(c.groups) / each, double(c.codes) / each};
            const int longest = int(std::min<int64_t>(groups + 1, LONG_LIST));
            const bool sort = !sorted && sorting_pays(P, trial);
            // Lists that are four times as long may spare the sorting.
            if (trial.full > FULL_TOLERATED && capacity < longest && !(sort && capacity > shortest())) {
                capacity = std::min(longest, sort ? 4 * capacity : LONG_LIST);
                continue;
            }
            if (sort) {
                sorted = true;
                sort_codes();
                continue;
            }
            if (sorted && anchors.empty() && P.metric == EUCLIDEAN && trial.codes > CODES_TOLERATED) {
                anchors = find_anchors(P);
                fine_held = false;
            }
            const int64_t fetched = bytes(F32) > CACHE_BYTES ? L.panel_bytes(F32, P.d) : 0;
            const Mode next = mode_after(mode, P, trial, fetched);
            if (next == mode || next == F32) return next;
            mode = next, capacity = shortest();  // leaves fewer groups in doubt
        }
    }

    void sort_codes() {
        order = sorted_codes(P);
        P.ids = order.data();
        P.k = int64_t(order.size());
        groups = (P.k + GROUP - 1) / GROUP;
        capacity = shortest();
        panels_held = fine_held = false;
    }

    // Runs job(i, scratch) for 0 <= i < count on the team, with so many bytes of scratch for each thread.
    template <class Job>
    void spread(int64_t count, int64_t scratch_bytes, const Job& job) {
        for (Buffer<char>& buffer : scratch) buffer.reserve(scratch_bytes);
        team.spread(count, [&](int64_t i, int thread) { job(i, thread, scratch[size_t(thread)].data()); });
        if (failure) throw Failure{failure};
    }

    // Packs the groups [g0, g1), around the problem's centre or around anchors of their own.
    Panels pack(Mode mode, int64_t g0, int64_t g1, Buffer<char>& into, const int32_t* own) {
        const int64_t stride = L.panel_bytes(mode, P.d), piece = std::max<int64_t>(1, PIECE_BYTES / stride);
        char* data = into.reserve((g1 - g0) * stride);
        spread((g1 - g0 + piece - 1) / piece, L.pack_scratch_bytes(mode, P.d), [&](int64_t i, int, char* space) {
            for (int64_t g = g0 + i * piece; g < std::min(g1, g0 + (i + 1) * piece); g++)
                if (!L.pack(P, mode, g, own ? own[g] : -1, data + (g - g0) * stride, space))
                    failure = LEXEL_CODES_NOT_FINITE;
        });
        return {data, g0, stride, mode, own};
    }

    // Searches all codes for `rows` rows: those numbered in `which`, or, if that is null, those from `first` on. Rows
    // whose lists overflow end in `undecided` if the answer is to be kept.
    Counts search(Mode mode, const int32_t* which, int64_t first, int64_t rows, Purpose purpose) {
        const Cut cut = cut_up(mode, rows);
        std::vector<State> splits = empty_lists(which, first, rows, cut);
        first_pass(mode, rows, cut, splits);
        const Panels* fine = panels_for_decision(mode, rows, purpose);
        std::vector<Counts> counts(scratch.size(), Counts{0, 0, 0});
        spread(cut.tiles, L.decide_scratch_bytes(P.d, P.topk), [&](int64_t i, int thread, char* space) {
            L.decide(P, fine, splits.data(), cut.splits, i * cut.tile, std::min(rows, (i + 1) * cut.tile), space,
                     purpose == COUNT, counts[size_t(thread)]);
        });
        Counts total{0, 0, 0};
        for (auto& c : counts) total.groups += c.groups, total.codes += c.codes, total.full += c.full;
        if (purpose == ANSWER && total.full)
            for (int64_t s = 0; s < rows; s++)
                if (splits[0].count[s] == FULL) undecided.push_back(int32_t(which ? which[s] : first + s));
        return total;
    }

    Cut cut_up(Mode mode, int64_t rows) const {
        const int64_t most = (mode < SINGLE ? STRIP_BYTES : TILE_BYTES) / L.row_bytes(mode, P.d), lanes = L.lanes;
        int64_t tile = std::clamp<int64_t>(most / TILE_STEP * TILE_STEP, TILE_STEP, TILE_ROWS);
        tile = std::min(tile, (rows + lanes - 1) / lanes * lanes);
        const int64_t tiles = (rows + tile - 1) / tile;
        return {tile, tiles, tiles < team.size() && groups >= SPLIT_GROUPS ? team.size() : 1};
    }

    std::vector<State> empty_lists(const int32_t* which, int64_t first, int64_t rows, const Cut& cut) {
        const int64_t slots = cut.tiles * cut.tile, all = slots * cut.splits;
        const State whole{which, first, best.reserve(all), count.reserve(all), list.reserve(all * capacity), capacity};
        std::vector<State> splits(size_t(cut.splits), whole);
        for (int i = 0; i < cut.splits; i++) {
            State& S = splits[size_t(i)];
            S.best += slots * i, S.count += slots * i, S.list += slots * i * capacity;
            for (int64_t s = 0; s < slots; s++) S.best[s] = s < rows ? -NEVER : NEVER, S.count[s] = s < rows ? 0 : FULL;
        }
        return splits;
    }

    // Runs all rows against all codes, a block of them at a time. Codes that fit as a whole stay packed.
    void first_pass(Mode mode, int64_t rows, const Cut& cut, std::vector<State>& splits) {
        const bool whole = fits(mode);
        if (!whole && panels_held) packed = Buffer<char>();  // larger than is needed from now on
        if (whole && !(panels_held && panels.mode == mode)) panels = pack(mode, 0, groups, packed, nullptr);
        panels_held = whole;
        const int64_t block = std::max<int64_t>(2, BLOCK_BYTES / L.panel_bytes(mode, P.d) / 2 * 2);
        for (int64_t g0 = 0; g0 < groups; g0 += block) {
            const int64_t g1 = std::min(groups, g0 + block);
            const int64_t share = ((g1 - g0 + cut.splits - 1) / cut.splits + 1) / 2 * 2;
            if (!whole) panels = pack(mode, g0, g1, packed, nullptr);
            const int64_t scratch_bytes = L.pass_scratch_bytes(mode, P.d, cut.tile);
            spread(cut.tiles * cut.splits, scratch_bytes, [&](int64_t i, int, char* space) {
                const int64_t s0 = i / cut.splits * cut.tile, s1 = std::min(rows, s0 + cut.tile);
                const int64_t a = g0 + i % cut.splits * share, b = std::min(g1, a + share);
                if (a >= b) return;
                L.begin(mode);
                if (!L.pass(P, panels, splits[size_t(i % cut.splits)], s0, s1, a, b, space))
                    failure = LEXEL_ROWS_NOT_FINITE;
                L.end(mode);
            });
        }
    }

    // The float32 panels of every code that the decision scores groups again with: those of the first pass, or others
    // where there are rows enough to pack them for. Null if there are none.
    const Panels* panels_for_decision(Mode mode, int64_t rows, Purpose purpose) {
        if (mode == F32 && panels_held && anchors.empty()) return &panels;
        const bool affordable = bytes(F32) <= FINE_BYTES && rows * 2 >= P.k / GROUP;
        if (purpose == COUNT || !(affordable || fine_held)) return nullptr;
        if (!fine_held) fine_panels = pack(F32, 0, groups, finely_packed, anchors.empty() ? nullptr : anchors.data());
        fine_held = true;
        return &fine_panels;
    }

    // Compares the undecided rows with every code in float64.
    void brute_force() {
        spread(int64_t(undecided.size()), L.decide_scratch_bytes(P.d, P.topk),
               [&](int64_t i, int, char* space) { L.brute(P, undecided[size_t(i)], space); });
    }
};

}  // namespace

void find_nearest(Problem& P, const Choice& choice, int threads) { Search(P, choice, threads).all(); }

}  // namespace lexel
