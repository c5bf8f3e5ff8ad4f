/* What reports share. */
#pragma once
#include <jansson.h>
#include <math.h>

/* JSON has no infinities, and what was not measured is null. */
static inline json_t *json_finite(double v) { return isfinite(v) ? json_real(v) : json_null(); }
