// The C interface.
#include "nearest.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "codes.h"
#include "machine.h"
#include "search.h"
#include "threads.h"

namespace {

constexpr double WORK_OF_A_THREAD = 4e6;  // multiply-adds that are worth starting one more thread for

int threads_for(double work, int threads) {
    const int worth = int(std::min<double>(threads, 1 + work / WORK_OF_A_THREAD));
    // A pool that changed its size would stop its threads and start others.
    return std::max(1, worth > 1 && lexel::pool.load() ? threads : worth);
}

const lexel::Choice* find_choice(const char* level) {
    const lexel::Choice* found = nullptr;
    for (auto& c : lexel::choices())
        if (!level || !*level || !std::strcmp(level, c.name)) found = &c;
    return found;
}

}  // namespace

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
    if (n > MOST_ROWS || k > MOST_ROWS || topk > MOST_NEIGHBOURS) return LEXEL_TOO_MANY;
    const Choice* choice = find_choice(level);
    if (!choice) return LEXEL_NO_SUCH_LEVEL;
    Problem P{x,      codes,          n,         xrow,    xcol, k,       crow,    ccol,
              int(d), Metric(metric), int(topk), nullptr, 1,    nullptr, indices, scores};
    try {
        FloatMode here;
        find_nearest(P, *choice, threads_for(double(n) * double(k) * double(d), threads));
    } catch (const Failure& failure) {
        return failure.status;
    } catch (...) {
        return LEXEL_NO_MEMORY;
    }
    return LEXEL_DONE;
}
