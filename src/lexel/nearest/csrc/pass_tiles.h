// The first pass with AMX tiles over bf16 numbers (SINGLE, SPLIT and JOINT).
#pragma once
#include "lists.h"
#include "words.h"

namespace lexel {
namespace {

// Codes are the left operand (a tile: 16 codes x 32 depths), rows the right one (16 depth pairs x 16 rows): a result
// tile then has rows in its columns, and a group's best is the vertical maximum of 16 vectors. One group by 32 rows is a
// block: three operand tiles for two products, which the loads keep up with.
#if LEXEL_LANES == 16 && defined(LEXEL_WITH_AMX)
#define LEXEL_AMX_TARGET __attribute__((target("amx-tile,amx-bf16")))
struct Run {  // products of code tiles a .. a+length with row tiles b .. b+length
    int64_t a, b, length;
};

struct Block {  // one group by two row vectors: where they are, and their scores
    int64_t group, vec[2];
    const Head* head;
    alignas(64) float scores[2][256];
};

// The vertical maximum of 16 codes, in four chains; the bias is in the products already (JOINT) or is added here.
template <bool JOINED>
inline Vec best_of_tile(const float* c, const float* bias) {
    Vec m[4];
    for (int j = 0; j < 16; j++) {
        Vec s = load(c + 16 * j);
        if (!JOINED) s = add(s, broadcast(bias[j]));
        m[j % 4] = j < 4 ? s : max_or_second(m[j % 4], s);
    }
    return max_or_second(max_or_second(m[0], m[1]), max_or_second(m[2], m[3]));
}

// result tiles C0, C1 = one group by two row vectors
#define LEXEL_MULTIPLY(C0, C1)                                                                                         \
    _tile_zero(C0);                                                                                                    \
    _tile_zero(C1);                                                                                                    \
    for (int r = 0; r < nruns; r++) {                                                                                  \
        const char *a = codes + runs[r].a * 1024, *b0 = x0 + runs[r].b * 1024, *b1 = x1 + runs[r].b * 1024;            \
        for (int64_t t = 0; t < runs[r].length * 1024; t += 1024) {                                                    \
            _tile_loadd(4, a + t, 64);                                                                                 \
            _tile_loadd(6, b0 + t, 64);                                                                                \
            _tile_loadd(7, b1 + t, 64);                                                                                \
            _tile_dpbf16ps(C0, 4, 6);                                                                                  \
            _tile_dpbf16ps(C1, 4, 7);                                                                                  \
        }                                                                                                              \
    }

template <bool JOINED>
LEXEL_AMX_TARGET void pass_tiles(const Problem& P, const Panels& panels, State& S, const Tile& T, int64_t g0,
                                 int64_t g1) {
    const int64_t words = T.words, vecs = T.vecs, all = words / 16, half = all / 2;
    const Run split[3] = {{0, 0, half}, {half, 0, half}, {0, half, half}}, whole[1] = {{0, 0, all}};
    const Run* runs = panels.mode == SPLIT ? split : whole;
    const int nruns = panels.mode == SPLIT ? 3 : 1;
    Block blocks[2];
    auto settle_block = [&](const Block& b) {
        for (int i = 0; i < 2; i++) {
            if (i && b.vec[1] == b.vec[0]) break;
            settle(P, S, T, b.vec[i] * 16, b.head, b.group, best_of_tile<JOINED>(b.scores[i], b.head->bias));
        }
    };
    // The next panel is fetched while this one is used, a share with every block.
    const int64_t ahead = round_up((panels.stride + (vecs + 1) / 2 - 1) / ((vecs + 1) / 2), 64);
    int64_t step = 0;
    for (int64_t g = g0; g < g1; g++) {
        const char *panel = panel_of(panels, g), *codes = panel + sizeof(Head);
        for (int64_t v = 0; v < vecs; v += 2, step++) {
            const int64_t u = v + 1 < vecs ? v + 1 : v;
            const char *x0 = reinterpret_cast<const char*>(T.rows + v * words * 16),
                       *x1 = reinterpret_cast<const char*>(T.rows + u * words * 16);
            // While the tile unit works on this block, the one before is stored and the one before that is looked at:
            // a result tile cannot be cleared before its store is done, so two pairs of them take turns.
            const bool odd = step & 1;
            for (int64_t i = v / 2 * ahead; i < (v / 2 + 1) * ahead && i < panels.stride; i += 64)
                __builtin_prefetch(panel + panels.stride + i);
            Block &here = blocks[odd], &before = blocks[!odd];
            if (odd) {
                LEXEL_MULTIPLY(2, 3)
            } else {
                LEXEL_MULTIPLY(0, 1)
            }
            if (step > 1) settle_block(here);
            if (odd) {
                _tile_stored(0, before.scores[0], 64);
                _tile_stored(1, before.scores[1], 64);
            } else if (step) {
                _tile_stored(2, before.scores[0], 64);
                _tile_stored(3, before.scores[1], 64);
            }
            here.group = g, here.vec[0] = v, here.vec[1] = u, here.head = reinterpret_cast<const Head*>(panel);
        }
    }
    if (step > 1) settle_block(blocks[step & 1]);
    if (step & 1) {
        _tile_stored(0, blocks[0].scores[0], 64);
        _tile_stored(1, blocks[0].scores[1], 64);
    } else {
        _tile_stored(2, blocks[1].scores[0], 64);
        _tile_stored(3, blocks[1].scores[1], 64);
    }
    if (step) settle_block(blocks[!(step & 1)]);
}

LEXEL_AMX_TARGET void begin(Mode mode) {
    if (mode < SINGLE) return;
    // palette 1; then for each of 8 tiles: 64 bytes a row, 16 rows. Static, since the intrinsic does not say it reads.
    alignas(64) static const uint8_t shape[64] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                                  64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0,
                                                  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                                  16, 16, 16, 16, 16, 16, 16, 16};
    _tile_loadconfig(shape);
}
LEXEL_AMX_TARGET void end(Mode mode) {
    if (mode >= SINGLE) _tile_release();
}
#else
void begin(Mode) {}
void end(Mode) {}
#endif

}  // namespace
}  // namespace lexel
