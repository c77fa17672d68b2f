// The driver of the nearest-code search: which level, which mode, which rows on which thread, what is decided again.
// Compiled for any processor of the architecture; everything that depends on an instruction set is in level.cpp.
#include "nearest.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lexel {

#if defined(__x86_64__)
extern const Level level_plain, level_avx2, level_avx512;
#elif defined(__aarch64__)
extern const Level level_neon;
#else
extern const Level level_plain;
#endif

int64_t scratch_floats(int d, int topk) { return 4 * int64_t(topk) + 3 * int64_t(d) + 8 * int64_t(d) + 4 * topk + 128; }

namespace {

// -- what this machine can run ---------------------------------------------------------------------------------------
struct Choice {
    const char* name;
    const Level* level;
    bool pairs, tiles;
};

bool tiles_allowed() {
#if defined(__linux__) && defined(__x86_64__) && defined(LEXEL_WITH_AMX)
    unsigned eax = 7, ebx, ecx = 0, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if (!(edx >> 22 & 1) || !(edx >> 24 & 1)) return false;                  // amx-bf16, amx-tile
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}
bool pairs_supported() {
#if defined(__x86_64__) && defined(LEXEL_WITH_BF16)
    unsigned eax = 7, ebx, ecx = 1, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return eax >> 5 & 1;
#else
    return false;
#endif
}

const std::vector<Choice>& choices() {
    static const std::vector<Choice> found = [] {
        std::vector<Choice> c;
#if defined(__x86_64__)
        __builtin_cpu_init();
        c.push_back({"plain", &level_plain, false, false});
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
            c.push_back({"avx2", &level_avx2, false, false});
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
            c.push_back({"avx512", &level_avx512, false, false});
            // bf16 pairs run at twice the float32 rate on AMD, at half of it on Intel: there plain AVX-512 is preferred
            if (pairs_supported()) c.insert(__builtin_cpu_is("intel") ? c.end() - 1 : c.end(), {"avx512_bf16", &level_avx512, true, false});
            if (tiles_allowed()) c.push_back({"amx", &level_avx512, false, true});
        }
#elif defined(__aarch64__)
        c.push_back({"neon", &level_neon, false, false});
#else
        c.push_back({"plain", &level_plain, false, false});
#endif
        return c;
    }();
    return found;
}

// -- threads ---------------------------------------------------------------------------------------------------------
// The pool of the OpenMP runtime that torch has loaded already, where Python found it: its threads wait for work in a
// loop, and would take the processors from any others. Elsewhere plain threads that live for one call.
std::atomic<Parallel> pool{nullptr};

class Team {
public:
    explicit Team(int size) : size_(size) {}
    ~Team() {
        stop_ = true;
        round_.fetch_add(1);
        for (auto& t : threads_) t.join();
    }
    int size() const { return size_; }
    void run(const std::function<void(int)>& job) {
        if (Parallel parallel = pool.load()) {
            struct Shared {
                const std::function<void(int)>& job;
                std::atomic<int> next;
            } shared{job, {0}};
            parallel(
                [](void* data) {
                    Shared& s = *static_cast<Shared*>(data);
                    s.job(s.next.fetch_add(1));
                },
                &shared, unsigned(size_), 0);
            return;
        }
        job_ = &job;
        left_ = int(threads_.size());
        round_.fetch_add(1);
        while (int(threads_.size()) < size_ - 1) {
            int id = int(threads_.size()) + 1;
            left_.fetch_add(1);
            try {
                threads_.emplace_back([this, id, seen = round_.load()] { loop(id, seen); });
            } catch (...) {  // no thread to be had: fewer will do
                left_.fetch_sub(1);
                size_ = int(threads_.size()) + 1;
            }
        }
        job(0);
        while (left_.load()) std::this_thread::yield();
    }

private:
    void loop(int id, unsigned seen) {
        for (;;) {
            if (stop_) return;
            (*job_)(id);
            left_.fetch_sub(1);
            while (round_.load() == seen) std::this_thread::yield();
            seen++;
        }
    }
    int size_;
    std::atomic<bool> stop_{false};
    std::atomic<unsigned> round_{0};
    std::atomic<int> left_{0};
    const std::function<void(int)>* job_ = nullptr;
    std::vector<std::thread> threads_;
};

// The rounding and flushing mode of the caller is not ours: the bounds need denormal numbers kept.
class FloatMode {
public:
#if defined(__x86_64__)
    FloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~FloatMode() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#elif defined(__aarch64__)
    FloatMode() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
        __asm__ volatile("msr fpcr, %0" : : "r"(uint64_t(0)));
    }
    ~FloatMode() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }

private:
    uint64_t saved_;
#else
    FloatMode() {}
#endif
};

template <class T>
class Buffer {  // aligned to cache lines, not initialised
public:
    T* reserve(int64_t count) {
        if (count > size_) {
            memory_.reset(static_cast<char*>(::operator new(size_t(count) * sizeof(T) + 64)));
            size_ = count;
        }
        return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory_.get()) + 63) & ~uintptr_t(63));
    }

private:
    struct Free {
        void operator()(char* p) const { ::operator delete(p); }
    };
    std::unique_ptr<char, Free> memory_;
    int64_t size_ = 0;
};

constexpr int64_t BLOCK_BYTES = 16 << 20;  // packed codes that all rows go through before the next
constexpr int64_t ALL_BYTES = 52 << 20;    // packed codes, float32 panels and lists together
constexpr int64_t CACHE_BYTES = 8 << 20;   // float32 panels that stay in the outer caches while rows are decided
constexpr int64_t FINE_BYTES = 24 << 20;   // float32 panels of the whole codebook, if they fit
constexpr int64_t LIST_BYTES = 12 << 20;   // lists of the rows of one chunk; more where each chunk packs the codes anew
constexpr int LONG_LIST = 1024;            // groups listed for a row where most data are in doubt
constexpr int64_t TILE_BYTES = 384 << 10;  // packed rows of one thread: they stay in its L2 cache,
constexpr int64_t STRIP_BYTES = 36 << 10;  // or in its L1 cache where AMX does not multiply
constexpr int CODES_BAD = 1, ROWS_BAD = 2;

struct Bad {
    int code;
};

class Search {
public:
    Search(Problem& p, const Choice& c, int threads) : P(p), how(c), L(*c.level), team(threads) {}

    void all() {
        find_centre();
        groups = (P.k + GROUP - 1) / GROUP;
        capacity = shortest();
        int mode = first_mode();
        if (P.n >= 4 * SAMPLE) mode = probe(mode);
        // What one mode leaves undecided is searched again in float32, with the same lists.
        const int64_t lists = fits(mode) || fits(F32) ? LIST_BYTES : ALL_BYTES - BLOCK_BYTES - fine_bytes(mode);
        const int64_t chunk = std::max<int64_t>(1024, lists / (capacity * int64_t(sizeof(Entry))));
        left.clear();
        for (int64_t first = 0; first < P.n; first += chunk)
            search(mode, nullptr, first, std::min(chunk, P.n - first), ANSWER);
        if (mode != F32) {
            const std::vector<int32_t> again = std::move(left);
            left.clear();
            for (int64_t first = 0, n = int64_t(again.size()); first < n; first += chunk)
                search(F32, again.data() + first, 0, std::min(chunk, n - first), ANSWER);
        }
        if (!left.empty()) brute(left);
    }

private:
    static constexpr int64_t SAMPLE = 192;
    enum Purpose { COUNT, TRIAL, ANSWER };  // of a search: what is in doubt; and what it takes to decide; to be kept
    Problem& P;
    const Choice& how;
    const Level& L;
    Team team;
    int64_t groups = 0;
    int capacity = 0;
    std::vector<float> centre;
    std::vector<int32_t> left, order, anchors;
    Buffer<char> block, finepanels;
    Buffer<float> best;
    Buffer<int32_t> count;
    Buffer<Entry> list;
    int held_mode = -1;
    bool held_fine = false;
    std::atomic<int> bad{0};

    // Any centre and any scale give a right answer; a sample of the codes gives good ones. A few codes far away from
    // the others would draw the mean out of their midst: then it is that of the nearer half.
    void find_centre() {
        const int64_t step = std::max<int64_t>(1, P.k / 2048), d = P.d;
        centre.assign(size_t(d), 0.0f);
        P.scale = 1;
        P.centre = centre.data();
        if (P.metric == COSINE) return;
        std::vector<double> far(size_t((P.k + step - 1) / step), 0.0);
        auto average = [&](double within) {
            std::vector<double> sum(size_t(d), 0.0);
            int64_t seen = 0;
            for (int64_t i = 0; i < P.k; i += step) {
                if (!(far[i / step] <= within)) continue;
                for (int64_t t = 0; t < d; t++) sum[t] += P.codes[i * P.crow + t * P.ccol];
                seen++;
            }
            for (int64_t t = 0; t < d; t++) centre[t] = float(sum[t] / double(seen));
        };
        average(0);
        double top = 0;
        for (int64_t i = 0; i < P.k; i += step) {
            double here = 0;
            for (int64_t t = 0; t < d; t++)
                here = std::max(here, std::fabs(double(P.codes[i * P.crow + t * P.ccol]) - centre[t]));
            far[i / step] = here;
            top = std::max(top, here);
        }
        if (!(top < 1e39)) throw Bad{CODES_BAD};
        if (top > 0) P.scale = std::ldexp(1.0f, std::clamp(-std::ilogb(top), -126, 126));
        std::vector<double> sorted = far;
        std::nth_element(sorted.begin(), sorted.begin() + sorted.size() / 2, sorted.end());
        const double middle = sorted[sorted.size() / 2];
        if (top > 8 * middle) average(middle);
    }

    int first_mode() const {
        if (how.tiles) return P.d <= 20 ? JOINT : SINGLE;
        return how.pairs && P.d > 3 ? PAIRS : F32;
    }

    int64_t bytes(int mode) const { return groups * L.panel_bytes(mode, P.d); }
    int64_t fine_bytes(int mode) const { return mode != F32 && bytes(F32) <= FINE_BYTES ? bytes(F32) : 0; }
    bool fits(int mode) const { return bytes(mode) + fine_bytes(mode) + LIST_BYTES <= ALL_BYTES; }  // all codes at once
    int shortest() const { return std::max(32, 4 * P.topk); }  // lists of groups for each row

    // Tries modes on a sample of the rows: the cheapest that leaves few enough groups in doubt. Where lists overflow,
    // they are made longer; where they are long, the codes are put in a better order if that can pay.
    int probe(int mode) {
        const int64_t sample = mode == F32 ? SAMPLE / 4 : SAMPLE;
        std::vector<int32_t> rows;
        for (int64_t i = 0; i < sample; i++) rows.push_back(int32_t(i * (P.n - 1) / (sample - 1)));
        bool sorted = false;
        for (;;) {
            Counts c = search(mode, rows.data(), 0, sample, sorted ? TRIAL : COUNT);
            const double full = double(c.full) / double(sample), rest = double(c.groups) / double(sample);
            const int longest = int(std::min<int64_t>(groups + 1, LONG_LIST));
            // cycles for a row; sorting and gathering take some for each code
            const double pairs = double(P.k) * P.d, f32 = pairs / 30, doubt = rest * (40 + P.d) + full * f32;
            const bool sort = !sorted && (full > 0.02 || rest > 4) &&
                              doubt * double(P.n) > double(P.k) * (200 + 4 * P.d);
            if (full > 0.02 && capacity < longest && !(sort && capacity > shortest())) {
                capacity = std::min(longest, sort ? 4 * capacity : LONG_LIST);
                continue;
            }
            if (sort) {
                sorted = true;
                regroup();
                capacity = shortest();
                continue;
            }
            if (sorted && anchors.empty() && P.metric == EUCLIDEAN && c.codes > 4 * sample) {
                find_anchors();
                held_fine = false;
            }
            if (mode == F32) return F32;
            // Each row compares one group again in any mode; what the caches do not hold is waited for.
            const int64_t panel = L.panel_bytes(F32, P.d);
            const double wait = bytes(F32) > CACHE_BYTES ? double(panel) / 2 : 0;
            const double again = (rest - 1) * (40 + P.d + wait) + full * f32;
            if (mode == SINGLE) {
                const double more = 2 * pairs / 450;
                if (again < more) return SINGLE;
                mode = SPLIT, capacity = shortest();  // leaves fewer groups in doubt
            } else if (mode == PAIRS) {
                return again < 0.4 * f32 ? PAIRS : F32;
            } else {
                return full > 0.75 ? F32 : mode;
            }
        }
    }

    // Sorts the codes, by length (to a factor of two) and then along an arbitrary direction. A long code spoils the
    // bound of its group: now they share theirs. Codes too close together to be told apart fill a few groups then,
    // not a place in each of many. Equal codes meet, and the first of them stands for all.
    void regroup() {
        struct Key {
            double place;
            int32_t length, id;
        };
        std::vector<Key> keys(static_cast<size_t>(P.k));
        std::vector<double> direction(static_cast<size_t>(P.d));
        uint64_t state = 1;
        for (double& a : direction) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            a = double(state >> 40) - double(1 << 23);
        }
        for (int64_t i = 0; i < P.k; i++) {
            const int32_t id = P.ids ? P.ids[i] : int32_t(i);
            const float* e = P.codes + id * P.crow;
            double square = 0, place = 0;
            for (int64_t t = 0; t < P.d; t++) {
                const double a = (double(e[t * P.ccol]) - centre[t]) * P.scale;
                square += a * a;
                place += a * direction[t];
            }
            if (P.metric == COSINE) place /= square > 0 ? std::sqrt(square) : 1, square = 1;
            keys[i] = {place, square > 0 ? std::ilogb(square) / 2 : -9999, id};
        }
        std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
            return a.length != b.length ? a.length < b.length : a.place != b.place ? a.place < b.place : a.id < b.id;
        });
        order.clear();
        for (size_t i = 0, first = 0; i < keys.size(); i++) {
            if (P.topk > 1 || order.empty() || !equal_codes(order.back(), keys[i].id)) order.push_back(keys[i].id);
            if (i + 1 < keys.size() && keys[i].length == keys[i + 1].length) continue;
            if (P.topk == 1 && i - first >= 4 * GROUP)  // a group of its own: copies of a code fill it
                while (order.size() % GROUP) order.push_back(order.back());
            first = i + 1;
        }
        P.ids = order.data();
        P.k = int64_t(order.size());
        groups = (P.k + GROUP - 1) / GROUP;
        held_mode = -1, held_fine = false;
    }

    bool equal_codes(int64_t i, int64_t j) const {
        int64_t t = 0;
        while (t < P.d && P.codes[i * P.crow + t * P.ccol] == P.codes[j * P.crow + t * P.ccol]) t++;
        return t == P.d;
    }

    // What serves each group as a centre of its own in the decision: its first code, or the anchor of the group before
    // where that is about as near, since a row is prepared anew for every anchor.
    void find_anchors() {
        auto radius = [&](int64_t first, int64_t anchor) {
            double most = 0;
            for (int64_t i = first; i < std::min(first + GROUP, P.k); i++) {
                double sum = 0;
                for (int64_t t = 0; t < P.d; t++) {
                    const double a = double(P.codes[P.ids[i] * P.crow + t * P.ccol]) -
                                     P.codes[P.ids[anchor] * P.crow + t * P.ccol];
                    sum += a * a;
                }
                most = std::max(most, sum);
            }
            return most;
        };
        anchors.clear();
        for (int64_t i = 0; i < P.k; i += GROUP) {
            const bool shared = i > 0 && radius(i, anchors.back()) <= 4 * radius(i, i);
            anchors.push_back(shared ? anchors.back() : int32_t(i));
        }
    }

    // Runs job(i, thread) for 0 <= i < count on the team.
    template <class Job>
    void spread(int64_t count, const Job& job) {
        if (team.size() == 1 || count == 1) {
            for (int64_t i = 0; i < count; i++) job(i, 0);
        } else {
            std::atomic<int64_t> next{0};
            team.run([&](int thread) {
                FloatMode here;
                for (int64_t i; (i = next.fetch_add(1)) < count;) job(i, thread);
            });
        }
        if (bad) throw Bad{bad};
    }

    Panels pack(int mode, int64_t g0, int64_t g1, Buffer<char>& into, bool own = false) {
        const int64_t stride = L.panel_bytes(mode, P.d), piece = std::max<int64_t>(1, 65536 / stride);
        char* data = into.reserve((g1 - g0) * stride);
        spread((g1 - g0 + piece - 1) / piece, [&](int64_t i, int) {
            std::vector<float> scratch(size_t(scratch_floats(P.d, 1)));
            for (int64_t g = g0 + i * piece; g < std::min(g1, g0 + (i + 1) * piece); g++)
                if (!L.pack(P, mode, g, own ? anchors[g] : -1, data + (g - g0) * stride, scratch.data())) bad = CODES_BAD;
        });
        return {data, g0, g1, stride, mode, own ? anchors.data() : nullptr};
    }

    // One first pass over all codes for `rows` rows, and their decision. Rows left undecided go to `left`.
    Counts search(int mode, const int32_t* which, int64_t first, int64_t rows, Purpose purpose) {
        const int64_t row_bytes = L.row_bytes(mode, P.d), lanes = L.lanes;
        const int64_t tile_bytes = mode < SINGLE ? STRIP_BYTES : TILE_BYTES;
        int64_t tile = std::clamp<int64_t>(tile_bytes / row_bytes / 48 * 48, 48, 192);
        tile = std::min(tile, (rows + lanes - 1) / lanes * lanes);
        const int64_t tiles = (rows + tile - 1) / tile, slots = tiles * tile;
        const int64_t stride = L.panel_bytes(mode, P.d);
        const int64_t per_block = std::min(groups, std::max<int64_t>(2, BLOCK_BYTES / stride / 2 * 2));
        // few rows: share out the codes instead
        const int splits = tiles < team.size() && groups >= 64 ? team.size() : 1;
        State S0{rows, which, first, best.reserve(slots * splits), count.reserve(slots * splits),
                 list.reserve(slots * splits * capacity), capacity};
        std::vector<State> S(size_t(splits), S0);
        for (int i = 0; i < splits; i++) {
            S[i].best += slots * i, S[i].count += slots * i, S[i].list += slots * i * capacity;
            for (int64_t s = 0; s < slots; s++) S[i].best[s] = s < rows ? -NEVER : NEVER, S[i].count[s] = s < rows ? 0 : FULL;
        }
        const int64_t scratch_size = row_bytes * (tile + lanes) + 4 * (P.d + 16 + 3 * tile) + 256;
        std::vector<Buffer<char>> scratch(size_t(team.size()));
        const bool whole = fits(mode);
        if (!whole && held_mode >= 0) block = Buffer<char>();  // larger than is needed from now on
        if (whole && held_mode != mode) panels = pack(mode, 0, groups, block);
        held_mode = whole ? mode : -1;
        for (int64_t g0 = 0; g0 < groups; g0 += per_block) {
            const int64_t g1 = std::min(groups, g0 + per_block), share = ((g1 - g0 + splits - 1) / splits + 1) / 2 * 2;
            if (!whole) panels = pack(mode, g0, g1, block);
            spread(tiles * splits, [&](int64_t i, int thread) {
                const int64_t s0 = i / splits * tile, a = g0 + i % splits * share, b = std::min(g1, a + share);
                if (a >= b) return;
                L.begin(mode);
                if (!L.pass(P, panels, S[i % splits], s0, std::min(rows, s0 + tile), a, b,
                            scratch[thread].reserve(scratch_size)))
                    bad = ROWS_BAD;
                L.end(mode);
            });
        }
        const bool affordable = bytes(F32) <= FINE_BYTES && rows * 2 >= P.k / GROUP;
        const Panels* fine = nullptr;
        if (mode == F32 && whole && anchors.empty()) {
            fine = &panels;
        } else if (purpose != COUNT && (affordable || held_fine)) {
            if (!held_fine) fines = pack(F32, 0, groups, finepanels, !anchors.empty());
            held_fine = true;
            fine = &fines;
        }
        std::vector<Counts> counts(size_t(team.size()), Counts{0, 0, 0});
        spread(tiles, [&](int64_t i, int thread) {
            std::vector<float> desk(size_t(scratch_floats(P.d, P.topk)));
            L.decide(P, fine, S.data(), splits, i * tile, std::min(rows, (i + 1) * tile), desk.data(), purpose == COUNT,
                     counts[thread]);
        });
        Counts total{0, 0, 0};
        for (auto& c : counts) total.groups += c.groups, total.codes += c.codes, total.full += c.full;
        if (purpose == ANSWER && total.full)
            for (int64_t s = 0; s < rows; s++)
                if (S[0].count[s] == FULL) left.push_back(int32_t(which ? which[s] : first + s));
        return total;
    }
    Panels panels{}, fines{};

    void brute(const std::vector<int32_t>& rows) {
        spread(int64_t(rows.size()), [&](int64_t i, int) {
            std::vector<float> desk(size_t(scratch_floats(P.d, P.topk)));
            L.brute(P, rows[size_t(i)], desk.data());
        });
    }
};

}  // namespace
}  // namespace lexel

extern "C" const char* lexel_levels() {
    static const std::string names = [] {
        std::string s;
        for (auto& c : lexel::choices()) s += (s.empty() ? "" : " ") + std::string(c.name);
        return s;
    }();
    return names.c_str();
}

extern "C" void lexel_use_pool(Parallel parallel) { lexel::pool = parallel; }

extern "C" int lexel_nearest(const float* x, int64_t n, int64_t xrow, int64_t xcol, const float* codes, int64_t k,
                             int64_t crow, int64_t ccol, int64_t d, int metric, int64_t topk, int threads,
                             const char* level, int64_t* indices, float* scores) {
    using namespace lexel;
    const Choice* how = nullptr;
    for (auto& c : choices())
        if (!level || !*level || !std::strcmp(level, c.name)) how = &c;
    if (!how) return 3;
    Problem P{x, codes, n, xrow, xcol, k, crow, ccol, int(d), metric, int(topk), nullptr, 1, nullptr, indices, scores};
    const double work = double(n) * double(k) * double(d);
    int wanted = int(std::min<double>(threads, 1 + work / 4e6));
    if (wanted > 1 && pool.load()) wanted = threads;  // a pool that keeps its size need not be made anew
    try {
        FloatMode here;
        Search(P, *how, std::max(1, wanted)).all();
    } catch (const Bad& b) {
        return b.code;
    } catch (...) {
        return 4;
    }
    return 0;
}
