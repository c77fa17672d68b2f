// How a codebook is made ready for the search: a centre and a scale for all codes, an order, and centres for groups.
// These change how long a search takes, never its answer.
#pragma once
#include <cstdint>
#include <vector>

#include "level.h"

namespace lexel {

struct Failure {  // thrown; lexel_nearest returns the status
    int status;
};

// Finds the centre of the codes and sets P.centre, which points into `centre`, and P.scale.
void find_centre(Problem& P, std::vector<float>& centre);

// The codes, as numbers of the caller's codebook, in an order in which those that are hard to tell apart share groups.
// A code that equals an earlier one is left out where only the nearest code is asked for; some may be there twice.
std::vector<int32_t> sorted_codes(const Problem& P);

// For each group the code that is its own centre in the decision. Groups with the same anchor lie side by side.
std::vector<int32_t> find_anchors(const Problem& P);

}  // namespace lexel
