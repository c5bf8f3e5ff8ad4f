/* Channels last, as some operators of com.microsoft have them. */
#pragma once
#include "ir/op/kit.h"

/* [batch, spatial…, channels] from [batch, channels, spatial…] where `last`, else the converse. */
Value *channels_moved(Build *b, Value *v, bool last);
/* Output 0 of a pooling of input 0, of its type; with its channels in the last dimension or not. */
bool channels_window_out(Model *m, Node *n, bool last);
