// The lists of the first pass: for each row the groups that may still hold one of its topk nearest codes.
#pragma once
#include "level.h"
#include "simd.h"

namespace lexel {
namespace {

// The row of x in a slot.
int64_t row_of(const State& S, int64_t slot) { return S.which ? S.which[slot] : S.first + slot; }

// Drops the groups that the running best has beaten.
void drop_beaten(Entry* list, int& count, float best) {
    int held = 0;
    for (int i = 0; i < count; i++)
        if (!(list[i].upper < best)) list[held++] = list[i];
    count = held;
}

// The k-th largest lower bound in the list: at least k codes score as much. `heap` is k floats of scratch.
float kth_lower(const Entry* list, int count, int k, float* heap) {
    int held = 0;
    for (int i = 0; i < count; i++) {
        float a = list[i].lower;
        if (held == k && !(a > heap[k - 1])) continue;
        int j = held < k ? held++ : k - 1;
        for (; j > 0 && heap[j - 1] < a; j--) heap[j] = heap[j - 1];
        heap[j] = a;
    }
    return held == k ? heap[k - 1] : -NEVER;
}

// Called when the list of a slot has no room left: drops what is beaten, and marks the row as FULL if that is too few.
void __attribute__((noinline)) make_room(const Problem& P, State& S, int64_t slot) {
    Entry* list = S.list + slot * S.capacity;
    if (P.topk > 1) {
        float heap[MOST_NEIGHBOURS];
        float bound = kth_lower(list, S.count[slot], P.topk, heap);
        if (bound > S.best[slot]) S.best[slot] = bound;
    }
    drop_beaten(list, S.count[slot], S.best[slot]);
    if (S.count[slot] > S.capacity * 3 / 4) {
        S.count[slot] = FULL;
        S.best[slot] = NEVER;
    }
}

struct Lanes {  // the bounds of the rows of a tile, by lane
    float *p, *q, *r;
};

// The rows of a tile as the first pass reads them: `vecs` vectors of LANES rows, `words` words deep.
struct Tile {
    const float* rows;
    int64_t words, vecs, slot0;  // slot0: the slot of the first row
    Lanes bounds;
};

// Takes the best scores of group g for LANES rows: raises the running best, and lists the group where it may hold the
// nearest code.
inline void settle(const Problem& P, State& S, const Tile& T, int64_t lane0, const Head* head, int64_t g, Vec score) {
    const Lanes& B = T.bounds;
    float* best = S.best + T.slot0 + lane0;
    Vec error = fma(load(B.p + lane0), broadcast(head->norm),
                    fma(load(B.q + lane0), broadcast(head->residue), add(load(B.r + lane0), broadcast(head->constant))));
    Vec upper = add(score, error), before = load(best);
    unsigned hits = not_less(upper, before);
    if (__builtin_expect(!hits, 1)) return;
    Vec lower = sub(score, error);
    if (P.topk == 1) store(best, max_or_second(lower, before));
    float u[LANES], l[LANES];
    store(u, upper);
    store(l, lower);
    for (; hits; hits &= hits - 1) {
        int j = __builtin_ctz(hits);
        int64_t slot = T.slot0 + lane0 + j;
        if (S.count[slot] == S.capacity) make_room(P, S, slot);
        if (S.count[slot] >= 0) S.list[slot * S.capacity + S.count[slot]++] = {u[j], l[j], int32_t(g)};
        else S.best[slot] = NEVER;
    }
}

}  // namespace
}  // namespace lexel
