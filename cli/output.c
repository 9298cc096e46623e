/*
 * output.c - error lines, tables and numbers for people.
 */
#include "cli.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_COLUMNS_MAX = 16 };

struct cli_table {
    size_t n_cols;
    char align[N_COLUMNS_MAX + 1];
    int widths[N_COLUMNS_MAX];
    char **cells; /* row by row, heads first */
    size_t n_cells, cap;
};

int cli_fail(const struct mb_error *err)
{
    fflush(stdout);
    fprintf(stderr, "moebius: %s\n", err->msg);
    return mb_status_exit_code(err->status);
}

/* Columns on a terminal: UTF-8 continuation bytes take none. */
static int text_width(const char *text)
{
    int width = 0;
    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

void *cli_check_memory(void *p)
{
    if (p == NULL) {
        fputs("moebius: out of memory\n", stderr);
        exit(4);
    }
    return p;
}

struct cli_table *cli_table_new(const char *align, const char *const *heads)
{
    struct cli_table *table = cli_check_memory(calloc(1, sizeof *table));
    table->n_cols = strlen(align) < N_COLUMNS_MAX ? strlen(align) : N_COLUMNS_MAX;
    memcpy(table->align, align, table->n_cols);
    for (size_t i = 0; i < table->n_cols; i++)
        cli_table_cell(table, "%s", heads[i]);
    return table;
}

void cli_table_cell(struct cli_table *table, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    va_end(args);
    cli_check_memory(text);
    mb_make_printable(text); /* it may quote a file */
    if (table->n_cells == table->cap) {
        table->cap = table->cap == 0 ? 64 : table->cap * 2;
        table->cells = cli_check_memory(realloc(table->cells, table->cap * sizeof *table->cells));
    }
    size_t column = table->n_cells % table->n_cols;
    int width = text_width(text);
    if (width > table->widths[column])
        table->widths[column] = width;
    table->cells[table->n_cells++] = text;
}

static void print_rule(const struct cli_table *table)
{
    putchar('|');
    for (size_t i = 0; i < table->n_cols; i++) {
        for (int k = 0; k < table->widths[i] + 1; k++)
            putchar('-');
        putchar(table->align[i] == 'r' ? ':' : '-');
        putchar('|');
    }
    putchar('\n');
}

void cli_table_print(struct cli_table *table)
{
    for (size_t i = 0; i < table->n_cells; i++) {
        size_t column = i % table->n_cols;
        int pad = table->widths[column] - text_width(table->cells[i]);
        bool right = table->align[column] == 'r';
        printf("%s%*s%s%*s |", column == 0 ? "| " : " ", right ? pad : 0, "", table->cells[i],
               right ? 0 : pad, "");
        if (column + 1 == table->n_cols)
            putchar('\n');
        if (i + 1 == table->n_cols)
            print_rule(table);
        free(table->cells[i]);
    }
    free(table->cells);
    free(table);
}

const char *cli_bytes(char text[32], uint64_t nbytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)nbytes;
    size_t unit = 0;
    for (; value >= 999.95 && unit < 4; unit++)
        value /= 1000;
    snprintf(text, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}

const char *cli_seconds(char text[32], double seconds)
{
    if (seconds < 59.95)
        snprintf(text, 32, "%.1f s", seconds);
    else if (seconds < 3600)
        snprintf(text, 32, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    else
        snprintf(text, 32, "%.0f h %02d min", seconds / 3600, (int)(seconds / 60) % 60);
    return text;
}
