/*
 * pause.h - what a thread does between two looks at a word that another thread will change.
 */
#ifndef MB_BASE_PAUSE_H
#define MB_BASE_PAUSE_H

static inline void mb_pause(void)
{
    __asm__ volatile("" ::: "memory");
}

#endif
