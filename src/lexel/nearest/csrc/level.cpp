// One level of the nearest-code search: packing, the first pass, and the decision. It is compiled once for each
// instruction set; LEXEL_LEVEL names the table it exports. This file and the headers of a level hold only static
// functions and use no templates of the C++ library, so that the linker cannot merge code built for a newer processor
// into an older path. Built with -ffp-contract=off: a multiplication and an addition are one operation only where the
// source says fma, so every level decides with the same arithmetic.
//
// Scores. A row x and a code w (centred, scaled) score s = <x, w> - |w|^2 / 2 (without the last term for cosine and dot
// products); the nearest code has the largest. The first pass computes s inexactly and keeps, for 16 codes at a time,
// only their best. bound.h bounds the error.
//
// Layout. Rows lie across vector lanes, codes in the unrolled dimension: the best of a group is then a vertical
// maximum, for as many rows at once as there are lanes, and the running best of those rows is one register.
//
// The headers:
// simd.h           vector operations of the instruction set
// words.h          how rows and codes are written for each mode
// exact.h          true scores, in float64
// bound.h          the bound on the first pass's error
// packing.h        rows and codes made ready for the first pass
// lists.h          groups that may hold the nearest code
// pass.h           the first pass; pass_multiply.h: in float32 or bf16 pairs; pass_tiles.h: with AMX
// decision.h       the nearest codes among those of the listed groups
#include "level.h"

#include "decision.h"
#include "pass.h"

namespace lexel {

#define LEXEL_CAT2(a, b) a##b
#define LEXEL_CAT(a, b) LEXEL_CAT2(a, b)
extern const Level LEXEL_CAT(level_, LEXEL_LEVEL);
const Level LEXEL_CAT(level_, LEXEL_LEVEL) = {
    LANES, panel_bytes, row_bytes, pack_scratch_bytes, pack, begin, end, pass_scratch_bytes, pass, decide_scratch_bytes,
    decide, brute};

}  // namespace lexel
