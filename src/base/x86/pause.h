/*
 * pause.h - what a thread does between two looks at a word that another thread will change.
 */
#ifndef MB_BASE_PAUSE_H
#define MB_BASE_PAUSE_H

/* Leaves the core to its other hardware thread, and avoids a pipeline flush when the word changes. */
static inline void mb_pause(void)
{
    __builtin_ia32_pause();
}

#endif
