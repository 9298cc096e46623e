/*
 * by_width.h - a function for each width of codes, and tables of them.
 *
 * A kernel is written once, as an MB_INLINE function that takes the width as an argument. Compiled for a
 * constant width it keeps its constants in registers and shifts by immediate values. So a macro of the
 * kernel's file defines a function of its own for each width, and a table chooses among them at run time:
 *
 *     #define UNPACK(a) static void unpack_##a(const uint8_t *p, uint8_t *out) { unpack(a, p, out); }
 *     MB_WIDTHS_1_TO_6(UNPACK)
 *     static void (*const unpack_of_width[])(const uint8_t *, uint8_t *) = {NULL, MB_NAMES_1_TO_6(unpack)};
 *
 * Widths that need another function (0, often 4, 7 and 8) are written into the table by hand.
 */
#ifndef MB_CODEC_BY_WIDTH_H
#define MB_CODEC_BY_WIDTH_H

#define MB_WIDTHS_1_TO_3(F) F(1) F(2) F(3)
#define MB_WIDTHS_2_TO_6(F) F(2) F(3) F(4) F(5) F(6)
#define MB_WIDTHS_1_TO_6(F) F(1) MB_WIDTHS_2_TO_6(F)
#define MB_WIDTHS_1_TO_8(F) MB_WIDTHS_1_TO_6(F) F(7) F(8)

#define MB_NAMES_1_TO_3(name) name##_1, name##_2, name##_3
#define MB_NAMES_2_TO_6(name) name##_2, name##_3, name##_4, name##_5, name##_6
#define MB_NAMES_1_TO_6(name) name##_1, MB_NAMES_2_TO_6(name)
#define MB_NAMES_1_TO_8(name) MB_NAMES_1_TO_6(name), name##_7, name##_8

#endif
