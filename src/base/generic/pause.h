/*
 * pause.h - what a thread does between two looks at a word that another thread will change.
 */
#ifndef MB_BASE_PAUSE_H
#define MB_BASE_PAUSE_H

static inline void mb_pause(void)
{
#if defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

#endif
