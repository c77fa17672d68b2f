// The decision: which codes of the listed groups are the topk nearest. Where float32 panels are at hand the groups are
// scored again in float32 first; what is left is compared in float64.
#pragma once
#include <cmath>

#include "lists.h"
#include "packing.h"

namespace lexel {
namespace {

struct Winners {  // the topk best so far, best first; the lower index on a tie
    double* score;
    int64_t* index;
    int held, size;
    void offer(double s, int64_t i) {
        if (held == size && !(s > score[size - 1] || (s == score[size - 1] && i < index[size - 1]))) return;
        int j = held < size ? held++ : size - 1;
        for (; j > 0 && (s > score[j - 1] || (s == score[j - 1] && i < index[j - 1])); j--) {
            score[j] = score[j - 1];
            index[j] = index[j - 1];
        }
        score[j] = s;
        index[j] = i;
    }
};

struct Work {  // the scratch of a decision: four vectors, k floats, and the winners
    float *x, *code, *v, *centre, *heap;
    Winners win;
    int64_t offered;  // codes compared in float64
};

int64_t decide_scratch_bytes(int d, int topk) {
    return topk * int64_t(sizeof(double) + sizeof(int64_t) + sizeof(float)) + 4 * int64_t(d) * int64_t(sizeof(float));
}

Work make_work(const Problem& P, char* scratch) {
    double* score = reinterpret_cast<double*>(scratch);
    int64_t* index = reinterpret_cast<int64_t*>(score + P.topk);
    float* x = reinterpret_cast<float*>(index + P.topk);
    return {x, x + P.d, x + 2 * P.d, x + 3 * P.d, x + 4 * P.d, {score, index, 0, P.topk}, 0};
}

void write_out(const Problem& P, int64_t row, const float* x, const Winners& win) {
    double length = P.metric == COSINE && P.scores ? root(dot_exactly(x, x, P.d)) : 1;
    for (int j = 0; j < P.topk; j++) {
        P.indices[row * P.topk + j] = win.index[j];
        if (!P.scores) continue;
        double s = win.score[j];
        P.scores[row * P.topk + j] = float(P.metric == EUCLIDEAN ? -s : length > 0 ? s / length : 0.0);
    }
}

void offer_code(const Problem& P, Work& work, const float* x, int64_t i) {
    work.win.offer(true_score(P, x, code_row(P, i, work.code)), code_id(P, i));
    work.offered++;
}

void brute(const Problem& P, int64_t row, char* scratch) {
    Work work = make_work(P, scratch);
    const float* x = raw_row(P, row, work.x);
    for (int64_t i = 0; i < P.k; i++) offer_code(P, work, x, i);
    write_out(P, row, x, work.win);
}

// The scores of COUNT groups in float32, from F32 panels: each broadcast of the row serves them all.
template <int COUNT>
void group_scores(const char* const* panels, const float* v, int d, float (*out)[GROUP]) {
    constexpr int NV = GROUP / LANES, CHAINS = COUNT * NV, WAYS = CHAINS >= 8 ? 1 : CHAINS >= 4 ? 2 : 4;
    Vec acc[WAYS][COUNT][NV];
    const float* codes[COUNT];
    for (int c = 0; c < COUNT; c++) {
        codes[c] = reinterpret_cast<const float*>(panels[c] + sizeof(Head));
        for (int n = 0; n < NV; n++) {
            acc[0][c][n] = load(reinterpret_cast<const Head*>(panels[c])->bias + n * LANES);
            for (int w = 1; w < WAYS; w++) acc[w][c][n] = broadcast(0);
        }
    }
    int t = 0;
    for (; t + WAYS <= d; t += WAYS)
        for (int w = 0; w < WAYS; w++) {
            Vec x = broadcast(v[t + w]);
            keep(x);
            for (int c = 0; c < COUNT; c++)
                for (int n = 0; n < NV; n++)
                    acc[w][c][n] = fma(x, load(codes[c] + (t + w) * GROUP + n * LANES), acc[w][c][n]);
        }
    for (; t < d; t++)
        for (int c = 0; c < COUNT; c++)
            for (int n = 0; n < NV; n++)
                acc[0][c][n] = fma(broadcast(v[t]), load(codes[c] + t * GROUP + n * LANES), acc[0][c][n]);
    for (int c = 0; c < COUNT; c++)
        for (int n = 0; n < NV; n++) {
            for (int w = 1; w < WAYS; w++) acc[0][c][n] = add(acc[0][c][n], acc[w][c][n]);
            store(out[c] + n * LANES, acc[0][c][n]);
        }
}

// The codes that may still be a row's nearest, by the scores of its groups in float32. Around a group's own centre m a
// code's score is the base, -|x - m|^2 / 2, in float64, plus a rest in float32, and only the rest, which is small, has
// an error.
struct Candidates {
    static constexpr int HELD = 64, BATCH = 4;
    const Problem& P;
    const Panels& fine;
    Work& work;
    const float* x;
    int64_t row;
    RowBound bound = {0, 0, 0};
    double base = 0, lower = -INFINITY, upper[HELD] = {};
    int64_t anchor = -2, code[HELD] = {};
    int held = 0, waiting = 0;
    int64_t groups[BATCH] = {};

    void add_group(int64_t g) {
        const int64_t wanted = fine.anchors ? fine.anchors[g] : -1;
        if (waiting == BATCH || anchor != wanted) score_waiting();
        if (anchor != wanted) {
            anchor = wanted;
            float norm2;
            prepare_row(anchor < 0 ? P : around(P, anchor, work.centre), row, work.v, &norm2);
            bound = row_bound(P, F32, norm2, 0);
            if (anchor >= 0) base = 0.5 * P.scale * P.scale * true_score(P, x, code_row(P, anchor, work.code));
        }
        groups[waiting++] = g;
    }

    // Scores the groups that wait; they go together, since the row's numbers are then read once for all of them.
    void score_waiting() {
        const char* panels[BATCH];
        alignas(64) float s[BATCH][GROUP];
        for (int i = 0; i < BATCH && waiting; i++)
            panels[i] = panel_of(fine, groups[i < waiting ? i : waiting - 1]);
        if (waiting > 2) group_scores<4>(panels, work.v, P.d, s);
        else if (waiting == 2) group_scores<2>(panels, work.v, P.d, s);
        else if (waiting) group_scores<1>(panels, work.v, P.d, s);
        for (int i = 0; i < waiting; i++) hold_group(groups[i], reinterpret_cast<const Head*>(panels[i]), s[i]);
        waiting = 0;
    }

    // Raises the lower bound of the best score, and holds the codes of a group that reach it.
    void hold_group(int64_t g, const Head* head, const float* s) {
        const float error = bound.p * head->norm + bound.q * head->residue + bound.r + head->constant;
        float top = s[0];
#pragma omp simd reduction(max : top)
        for (int t = 0; t < GROUP; t++) top = s[t] > top ? s[t] : top;
        if (base + top - error > lower) lower = base + top - error;
        float reach = float(lower - base) - error;
        reach -= 2 * U * (fabsf(reach) + error);
        unsigned hits = 0;
        for (int t = 0; t < GROUP; t += LANES) hits |= not_less(load(s + t), broadcast(reach)) << t;
        const int64_t first = g * GROUP;
        if (P.k - first < GROUP) hits &= (1u << (P.k - first)) - 1;
        for (; hits; hits &= hits - 1) {
            const int t = __builtin_ctz(hits);
            const char* soon = reinterpret_cast<const char*>(P.codes + code_id(P, first + t) * P.crow);
            for (int i = 0; i < P.d && i < 128; i += 16) __builtin_prefetch(soon + 4 * i * P.ccol);
            if (held == HELD) drop_beaten();
            if (held == HELD) offer_code(P, work, x, first + t);
            else upper[held] = base + double(s[t]) + error, code[held++] = first + t;
        }
    }

    void drop_beaten() {
        int left = 0;
        for (int h = 0; h < held; h++)
            if (!(upper[h] < lower)) upper[left] = upper[h], code[left++] = code[h];
        held = left;
    }

    void finish() {
        score_waiting();
        drop_beaten();
        if (held == 1 && work.win.held == 0 && !P.scores) {
            work.win.held = 1, work.win.index[0] = code_id(P, code[0]);
        } else {
            for (int h = 0; h < held; h++) offer_code(P, work, x, code[h]);
        }
    }
};

// The best that the splits have proven of a row: a lower bound of its topk-th best score.
float best_of_splits(const Problem& P, const State* splits, int nsplits, int64_t slot, float* heap) {
    float best = -NEVER;
    for (int i = 0; i < nsplits; i++)
        if (splits[i].best[slot] > best) best = splits[i].best[slot];
    if (P.topk > 1)
        for (int i = 0; i < nsplits; i++) {
            const State& S = splits[i];
            float a = kth_lower(S.list + slot * S.capacity, S.count[slot], P.topk, heap);
            if (a > best) best = a;
        }
    return best;
}

// Counts every listed group of a row that may reach `best`, and calls visit(g) for it.
template <class Visit>
void every_listed(const State* splits, int nsplits, int64_t slot, float best, Counts& counts, Visit&& visit) {
    for (int i = 0; i < nsplits; i++) {
        const Entry* list = splits[i].list + slot * splits[i].capacity;
        for (int j = 0; j < splits[i].count[slot]; j++)
            if (!(list[j].upper < best)) counts.groups++, visit(int64_t(list[j].group));
    }
}

void decide(const Problem& P, const Panels* fine, State* splits, int nsplits, int64_t s0, int64_t s1, char* scratch,
            bool only_count, Counts& counts) {
    for (int64_t slot = s0; slot < s1; slot++) {
        bool full = false;
        for (int i = 0; i < nsplits; i++) full |= splits[i].count[slot] == FULL;
        if (full) {
            splits[0].count[slot] = FULL;
            counts.full++;
            continue;
        }
        Work work = make_work(P, scratch);
        const float best = best_of_splits(P, splits, nsplits, slot, work.heap);
        if (only_count) {
            every_listed(splits, nsplits, slot, best, counts, [](int64_t) {});
            continue;
        }
        const int64_t row = row_of(splits[0], slot);
        const float* x = raw_row(P, row, work.x);
        if (fine && P.topk == 1) {
            Candidates candidates{P, *fine, work, x, row};
            every_listed(splits, nsplits, slot, best, counts, [&](int64_t g) { candidates.add_group(g); });
            candidates.finish();
        } else {
            every_listed(splits, nsplits, slot, best, counts, [&](int64_t g) {
                for (int64_t i = g * GROUP; i < (g + 1) * GROUP && i < P.k; i++) offer_code(P, work, x, i);
            });
        }
        counts.codes += work.offered;
        write_out(P, row, x, work.win);
    }
}

}  // namespace
}  // namespace lexel
