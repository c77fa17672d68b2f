// The first pass over one tile of rows: the rows are packed and laid across the lanes, and the kernel of the mode runs.
#pragma once
#include "packing.h"
#include "pass_multiply.h"
#include "pass_tiles.h"

namespace lexel {
namespace {

// The scratch of a pass: the tile, LANES rows that are packed but not yet laid across the lanes, one row, and bounds.
struct PassScratch {
    float* tile;
    uint32_t* lines;
    float* v;
    Lanes bounds;
};

int64_t pass_scratch_bytes(Mode mode, int d, int64_t rows) {
    const int64_t lanes = round_up(rows, LANES);
    return 4 * ((lanes + LANES) * words_of(mode, d) + round_up(d, 16) + 3 * lanes);
}

PassScratch lay_out(char* scratch, Mode mode, int d, int64_t rows) {
    const int64_t lanes = round_up(rows, LANES), words = words_of(mode, d);
    float* tile = reinterpret_cast<float*>(scratch);
    uint32_t* lines = reinterpret_cast<uint32_t*>(tile + lanes * words);
    float* v = reinterpret_cast<float*>(lines + LANES * words);
    float* bounds = v + round_up(d, 16);
    return {tile, lines, v, {bounds, bounds + lanes, bounds + 2 * lanes}};
}

// Packs the row in a slot into `line` and writes its bounds into the lane. A row that is too long for the first pass
// is FULL, and zeros take its place. Returns false if the row is not finite.
inline bool fill_lane(const Problem& P, Mode mode, State& S, int64_t slot, const PassScratch& to, int64_t lane,
                      uint32_t* line) {
    float norm2;
    const bool finite = prepare_row(P, row_of(S, slot), to.v, &norm2);
    if (!(norm2 < HUGE_NORM * HUGE_NORM)) {
        S.count[slot] = FULL;
        S.best[slot] = NEVER;
        memset(line, 0, 4 * size_t(words_of(mode, P.d)));
    } else {
        RowBound b = row_bound(P, mode, norm2, pack_words(mode, false, to.v, P.d, 0, line));
        to.bounds.p[lane] = b.p, to.bounds.q[lane] = b.q, to.bounds.r[lane] = b.r;
    }
    return finite;
}

// Packs slots [s0, s1) into the tile; zeros fill the lanes that are left over. Returns false if a row is not finite.
bool fill_tile(const Problem& P, Mode mode, State& S, int64_t s0, int64_t s1, const PassScratch& to) {
    const int64_t words = words_of(mode, P.d), rows = round_up(s1 - s0, LANES), vecs = rows / LANES;
    bool finite = true;
    for (int64_t i = 0; i < rows; i++) {
        uint32_t* line = to.lines + (i % LANES) * words;
        to.bounds.p[i] = to.bounds.q[i] = to.bounds.r[i] = 0;
        if (s0 + i < s1) finite &= fill_lane(P, mode, S, s0 + i, to, i, line);
        else memset(line, 0, 4 * size_t(words));
        if (i % LANES == LANES - 1) {  // AMX reads vectors one by one, the other kernels strips of them
            const int64_t vec = i / LANES, first = mode >= SINGLE ? vec : vec / STRIP * STRIP;
            const int64_t together = mode >= SINGLE ? 1 : vecs - first < STRIP ? vecs - first : STRIP;
            transpose(to.lines, words, reinterpret_cast<uint32_t*>(to.tile) + (first * words + vec - first) * LANES,
                      together * LANES);
        }
    }
    return finite;
}

bool pass(const Problem& P, const Panels& panels, State& S, int64_t s0, int64_t s1, int64_t g0, int64_t g1,
          char* scratch) {
    const Mode mode = panels.mode;
    const PassScratch to = lay_out(scratch, mode, P.d, s1 - s0);
    if (!fill_tile(P, mode, S, s0, s1, to)) return false;
    const Tile T = {to.tile, words_of(mode, P.d), round_up(s1 - s0, LANES) / LANES, s0, to.bounds};
    switch (mode) {
#ifdef LEXEL_AMX_TARGET
        case SINGLE:
        case SPLIT: pass_tiles<false>(P, panels, S, T, g0, g1); break;
        case JOINT: pass_tiles<true>(P, panels, S, T, g0, g1); break;
#endif
#ifdef LEXEL_PAIRS_TARGET
        case PAIRS: pass_pairs(P, panels, S, T, g0, g1); break;
#endif
        default: pass_f32(P, panels, S, T, g0, g1);
    }
    return true;
}

}  // namespace
}  // namespace lexel
