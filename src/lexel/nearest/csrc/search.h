// The driver of the search.
#pragma once
#include "level.h"
#include "machine.h"

namespace lexel {

// Solves P, whose centre, scale and ids are filled in here, on so many threads. Throws Failure or std::bad_alloc.
void find_nearest(Problem& P, const Choice& choice, int threads);

}  // namespace lexel
