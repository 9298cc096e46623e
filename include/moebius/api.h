/*
 * api.h - MB_API: what the shared library exports, and nothing else.
 */
#ifndef MOEBIUS_API_H
#define MOEBIUS_API_H

#if defined(__GNUC__)
#define MB_API __attribute__((visibility("default")))
#else
#define MB_API
#endif

#endif
