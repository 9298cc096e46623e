/*
 * pause.h - what a thread does between two looks at a word that another thread will change.
 */
#ifndef MB_BASE_PAUSE_H
#define MB_BASE_PAUSE_H

/* A pipeline flush: it takes as long as other processors' pauses, where "yield" does nothing on most. */
static inline void mb_pause(void)
{
    __asm__ volatile("isb" ::: "memory");
}

#endif
