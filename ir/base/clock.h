/* Clocks, for progress, statistics and limits; no result depends on them. */
#pragma once
double clock_seconds(void);        /* since some moment */
double clock_thread_seconds(void); /* of processor time of the calling thread */
