// The cost model: what is decided from a sample of the rows. Costs are processor cycles for one row on one thread of
// a processor with AVX-512 and AMX; only their ratios matter. A poor number costs time, never the answer.
#pragma once
#include "level.h"

namespace lexel {

// -- the machine ------------------------------------------------------------------------------------------------------
constexpr double FLOAT32_RATE = 30;   // multiply-adds a cycle of the float32 pass: nearly all of two units of 16 lanes
constexpr double TILE_RATE = 450;     // multiply-adds a cycle of the AMX passes, of 512 that the unit can do
constexpr double RESCORE = 40;        // scoring one listed group again in float32: this much, and
constexpr double RESCORE_DEPTH = 1;   // this for each dimension (16 codes are one vector)
constexpr double FETCH_RATE = 2;      // bytes a cycle of a panel that the caches do not hold: the decision waits for it
constexpr double SORT = 200;          // sorting and gathering one code: this much, and
constexpr double SORT_DEPTH = 4;      // this for each dimension

// -- what is tolerated before something is done about it --------------------------------------------------------------
constexpr double FULL_TOLERATED = 0.02;  // share of the rows whose lists overflow: lists grow, or codes are sorted
constexpr double GROUPS_TOLERATED = 4;   // listed groups a row: codes are sorted if that pays
constexpr double CODES_TOLERATED = 4;    // codes a row that are compared in float64: groups get centres of their own
constexpr double PAIRS_SAVE = 0.4;       // share of the float32 pass that bf16 pairs save: half of it, less some safety
constexpr double FULL_HOPELESS = 0.75;   // share of the rows whose lists overflow: the pass in bf16 was for nothing

// What a search of a sample left to do, for one row.
struct Trial {
    double full;    // share of the rows whose lists overflowed: they take the float32 pass
    double groups;  // to be scored again in float32
    double codes;   // to be compared in float64
};

inline double float32_pass(const Problem& P) { return double(P.k) * P.d / FLOAT32_RATE; }
inline double rescoring(int d) { return RESCORE + RESCORE_DEPTH * d; }

// Whether the groups in doubt cost more than it takes to sort the codes.
inline bool sorting_pays(const Problem& P, const Trial& trial) {
    if (trial.full <= FULL_TOLERATED && trial.groups <= GROUPS_TOLERATED) return false;
    const double doubt = trial.groups * rescoring(P.d) + trial.full * float32_pass(P);
    return doubt * double(P.n) > double(P.k) * (SORT + SORT_DEPTH * P.d);
}

// The mode to go on with after a trial of `mode`: the same one if that is cheap enough, otherwise F32 or the next one to
// try. `panel_bytes` is the size of a float32 panel if it has to be fetched from beyond the caches, otherwise 0.
inline Mode mode_after(Mode mode, const Problem& P, const Trial& trial, int64_t panel_bytes) {
    // Each row scores one group again in any mode.
    const double wait = double(panel_bytes) / FETCH_RATE, f32 = float32_pass(P);
    const double again = (trial.groups - 1) * (rescoring(P.d) + wait) + trial.full * f32;
    switch (mode) {
        case SINGLE: return again < 2 * (double(P.k) * P.d) / TILE_RATE ? SINGLE : SPLIT;  // SPLIT: two more products
        case PAIRS: return again < PAIRS_SAVE * f32 ? PAIRS : F32;
        case SPLIT:
        case JOINT: return trial.full > FULL_HOPELESS ? F32 : mode;
        default: return F32;
    }
}

}  // namespace lexel
