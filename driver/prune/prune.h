/* `burin prune`. */
#pragma once
#include "driver/driver.h"

int verb_prune(const Options *o); /* exit status */
