// What the driver (nearest.cpp, compiled for any processor) and the levels (level.cpp, compiled once for each
// instruction set) tell each other. Words: a *row* is an input, a *group* is 16 consecutive codes, a *panel* is a
// group packed for one mode of the first pass.
#pragma once
#include <cstddef>
#include <cstdint>

namespace lexel {

enum Metric { EUCLIDEAN = 0, COSINE = 1, DOT = 2 };

// How the first pass multiplies. SINGLE and SPLIT are AMX tiles over bf16 codes, with one product (hi*hi) or three
// (hi*hi + hi*lo + lo*hi). JOINT lays the three products and the bias side by side in one depth, for small D.
enum Mode { F32 = 0, PAIRS = 1, SINGLE = 2, SPLIT = 3, JOINT = 4 };

constexpr int GROUP = 16;
constexpr float NEVER = 3.402823466e+38f;  // a running best that no score can reach
constexpr int FULL = -1;                   // the count of a row whose list of groups overflowed

struct Problem {
    const float *x, *codes;
    int64_t n, xrow, xcol;       // rows and strides, in elements
    int64_t k, crow, ccol;       // codes and strides
    int d, metric, topk;
    const float* centre;         // d floats, subtracted from the codes (and from the rows if euclidean)
    float scale;                 // a power of two; brings the centred codes near 1
    const int32_t* ids;          // the codes searched, in any order; null means 0 .. k-1
    int64_t* indices;            // out: n * topk
    float* scores;               // out: n * topk, or null
};

// A panel starts with what the error bound needs to know of its codes; the packed codes follow.
struct Head {
    float norm;      // the largest norm of a code (centred and scaled), rounded up
    float residue;   // the largest norm of what packing rounded away, and its like
    float constant;  // the part of the bound that does not depend on the row
    float unused[13];
    float bias[GROUP];  // -|w|^2 / 2, or 0
};

struct Entry {  // a group that may hold the nearest code: bounds of the best score in it
    float upper, lower;
    int32_t group;
};

// The running state of a set of rows. Rows are addressed by slot; `which` maps a slot to a row of x.
struct State {
    int64_t rows;
    const int32_t* which;  // null: slot i is row first + i
    int64_t first;
    float* best;           // a proven lower bound of the row's topk-th best score so far
    int32_t* count;        // entries in the list, or FULL
    Entry* list;           // rows * capacity
    int capacity;
};

struct Panels {
    const char* data;
    int64_t begin, end;  // groups held
    int64_t stride;      // bytes from panel to panel
    int mode;
    const int32_t* anchors;  // the code that is each group's centre, or null: all have the problem's
};

struct Counts {
    int64_t groups, codes, full;  // looked at again in float32; in float64; rows left undecided
};

struct Level {
    const char* name;
    int lanes;
    void (*begin)(int mode);  // per thread, before pass
    void (*end)(int mode);
    int64_t (*panel_bytes)(int mode, int d);
    int64_t (*row_bytes)(int mode, int d);
    // Packs group g, around the problem's centre or, if not negative, code `anchor`; false if a code is not finite.
    bool (*pack)(const Problem&, int mode, int64_t g, int64_t anchor, char* panel, float* scratch);
    // Runs slots [s0, s1) against the groups [g0, g1) of the panels; false if a row is not finite.
    bool (*pass)(const Problem&, const Panels&, State&, int64_t s0, int64_t s1, int64_t g0, int64_t g1, char* scratch);
    // Decides slots [s0, s1) from the lists of all splits, or only counts what is listed; `fine` are F32 panels of every
    // code, or null.
    void (*decide)(const Problem&, const Panels* fine, State* splits, int nsplits, int64_t s0, int64_t s1, float* scratch,
                   bool only_count, Counts&);
    // Decides one row from the true scores of all codes.
    void (*brute)(const Problem&, int64_t row, float* scratch);
};

int64_t scratch_floats(int d, int topk);
int64_t pass_scratch_bytes(const Level&, int mode, int d, int64_t rows);

}  // namespace lexel

// -- the C interface that Python loads --------------------------------------------------------------------------------
#if defined(_WIN32)
#define LEXEL_API __declspec(dllexport)
#else
#define LEXEL_API __attribute__((visibility("default")))
#endif
extern "C" {
// GOMP_parallel of an OpenMP runtime: runs a function on so many of its threads.
typedef void (*Parallel)(void (*)(void*), void*, unsigned threads, unsigned flags);
// Takes threads from this runtime from now on.
LEXEL_API void lexel_use_pool(Parallel);
// Names of the levels this machine can run, best last, separated by spaces.
LEXEL_API const char* lexel_levels();
// 0: done. 1: a code is not finite. 2: a row is not finite. 3: no such level. 4: out of memory or threads.
LEXEL_API int lexel_nearest(const float* x, int64_t n, int64_t xrow, int64_t xcol, const float* codes, int64_t k, int64_t crow,
                  int64_t ccol, int64_t d, int metric, int64_t topk, int threads, const char* level, int64_t* indices,
                  float* scores);
}
