// What the driver (search.cpp, compiled for any processor) and the levels (level.cpp, compiled once for each
// instruction set) tell each other. No functions stand here, not even members: the linker could merge one that was
// compiled for a newer processor into an older path.
//
// Words. A *row* is one input. A *group* is 16 consecutive codes. A *panel* is a group packed for one mode of the first
// pass. A *split* is a share of the groups that one thread takes, where there are too few rows to share out.
#pragma once
#include <cstddef>
#include <cstdint>

namespace lexel {

enum Metric { EUCLIDEAN = 0, COSINE = 1, DOT = 2 };

// How the first pass multiplies: F32 in float32, PAIRS two bf16 numbers at a time. The others use AMX tiles over bf16
// codes: SINGLE computes one product (hi*hi), SPLIT three (hi*hi + hi*lo + lo*hi), and JOINT lays the three products
// and the bias side by side in one depth, for small D.
enum Mode { F32 = 0, PAIRS = 1, SINGLE = 2, SPLIT = 3, JOINT = 4 };

constexpr int GROUP = 16;
constexpr int MOST_NEIGHBOURS = 64;               // the lists of the first pass hold 4 * topk groups
constexpr int64_t MOST_ROWS = (int64_t(1) << 31) - 1;  // rows and codes are numbered in 32 bits
constexpr float NEVER = 3.402823466e+38f;         // a running best that no score can reach
constexpr int FULL = -1;                          // the count of a row whose list of groups overflowed

struct Problem {
    const float *x, *codes;
    int64_t n, xrow, xcol;  // rows and strides, in elements
    int64_t k, crow, ccol;  // codes and strides
    int d;
    Metric metric;
    int topk;
    const float* centre;  // d floats, subtracted from the codes (and from the rows if euclidean)
    float scale;          // a power of two that brings the centred codes near 1
    const int32_t* ids;   // the codes that are searched, in any order; null means 0 .. k-1
    int64_t* indices;     // out: n * topk
    float* scores;        // out: n * topk, or null
};

// A panel starts with what the error bound needs of its codes (bound.h); the packed codes follow.
struct Head {
    float norm;      // the largest norm of a code (centred and scaled), rounded up
    float residue;   // the largest norm of what packing and centring rounded away from a code
    float constant;  // the part of the bound that does not depend on the row
    float padding[13];
    float bias[GROUP];  // -|w|^2 / 2, or 0
};

struct Entry {  // a group that may hold the nearest code: bounds of the best score in it
    float upper, lower;
    int32_t group;
};

// What the first pass knows so far of a set of rows. Rows are addressed by slot; `which` maps a slot to a row of x.
struct State {
    const int32_t* which;  // null: slot i is row first + i
    int64_t first;
    float* best;     // a proven lower bound of the row's topk-th best score so far
    int32_t* count;  // entries in the list, or FULL
    Entry* list;     // `capacity` entries for each slot
    int capacity;
};

struct Panels {
    const char* data;
    int64_t begin;   // the first group held
    int64_t stride;  // bytes from panel to panel
    Mode mode;
    const int32_t* anchors;  // for each group the code that is its centre; null: all have the problem's centre
};

struct Counts {
    int64_t groups;  // scored again in float32
    int64_t codes;   // compared in float64
    int64_t full;    // rows left undecided, since their lists overflowed
};

// The functions of one level. Those that take `scratch` want so many bytes of it, aligned to 64, as the function
// named before them says.
struct Level {
    int lanes;  // rows that go through the first pass side by side
    int64_t (*panel_bytes)(Mode mode, int d);
    int64_t (*row_bytes)(Mode mode, int d);

    // Packs group g, around the problem's centre or, if `anchor` is not negative, around that code. Returns false if a
    // code is not finite.
    int64_t (*pack_scratch_bytes)(Mode mode, int d);
    bool (*pack)(const Problem&, Mode mode, int64_t g, int64_t anchor, char* panel, char* scratch);

    // Each thread calls `begin` before its passes in a mode, and `end` after them.
    void (*begin)(Mode mode);
    void (*end)(Mode mode);
    // Runs slots [s0, s1) against the groups [g0, g1) of the panels. Returns false if a row is not finite.
    int64_t (*pass_scratch_bytes)(Mode mode, int d, int64_t rows);
    bool (*pass)(const Problem&, const Panels&, State&, int64_t s0, int64_t s1, int64_t g0, int64_t g1, char* scratch);

    // Decides slots [s0, s1) from the lists of all splits, or, if `only_count`, counts what is listed and writes
    // nothing. `fine` are F32 panels of every code, or null.
    int64_t (*decide_scratch_bytes)(int d, int topk);
    void (*decide)(const Problem&, const Panels* fine, State* splits, int nsplits, int64_t s0, int64_t s1,
                   char* scratch, bool only_count, Counts&);
    // Decides one row from the true scores of all codes. Needs the scratch of `decide`.
    void (*brute)(const Problem&, int64_t row, char* scratch);
};

}  // namespace lexel
