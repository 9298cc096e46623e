/*
 * simulate_chart.c - hit rates as a picture: a line for each policy over the share of experts in memory.
 */
#include "base/number.h"
#include "cli.h"
#include "output_file.h"
#include "simulate.h"
#include <math.h>
#include <string.h>

enum { WIDTH = 760, HEIGHT = 480, LEFT = 60, TOP = 56, PLOT_WIDTH = 540, PLOT_HEIGHT = 360 };
enum { NAME_HEIGHT = 16, N_LINES_MAX = 16 };

/* Colours that differ in the dark, in print and for most colour-blind people; the default is the strongest.
 */
static const char *const colours[] = {"#d6336c", "#1c7ed6", "#2b8a3e", "#e8590c",
                                      "#7048e8", "#0c8599", "#868e96", "#a07000"};

static const char style[] =
    "<style>text{font:13px system-ui,sans-serif;fill:#222}.small{font-size:11px}.grid{stroke:#ccc}"
    ".back{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}"
    ".back{fill:#16181c}}</style>\n";

/* Without a locale's comma. */
static void put(FILE *out, const char *format, double a, double b, double c, double d)
{
    char text[512];
    mb_number_format(text, sizeof text, format, a, b, c, d);
    fputs(text, out);
}

static void put_text(FILE *out, double x, double y, const char *attributes, const char *text)
{
    put(out, "<text x=\"%.1f\" y=\"%.1f\" ", x, y, 0, 0);
    fprintf(out, "%s>%s</text>\n", attributes, text);
}

static double x_of(double share)
{
    return LEFT + PLOT_WIDTH * fmin(share, 1);
}

static double y_of(double hits)
{
    return TOP + PLOT_HEIGHT * (1 - hits);
}

static double hits_of(const struct simulate_row *row)
{
    return row->result.n_uses > 0 ? (double)row->result.n_hits / (double)row->result.n_uses : 0;
}

static void draw_axes(FILE *out, const char *title)
{
    for (int i = 0; i <= 10; i += 2) {
        char text[16];
        snprintf(text, sizeof text, "%d%%", 10 * i);
        put(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT,
            LEFT + PLOT_WIDTH, y_of(i / 10.0), y_of(i / 10.0));
        put(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", x_of(i / 10.0),
            x_of(i / 10.0), TOP, TOP + PLOT_HEIGHT);
        put_text(out, LEFT - 8, y_of(i / 10.0) + 4, "text-anchor=\"end\"", text);
        put_text(out, x_of(i / 10.0), TOP + PLOT_HEIGHT + 18, "text-anchor=\"middle\"", text);
    }
    put_text(out, LEFT, TOP - 32, "style=\"font-weight:bold\"", "Experts found in memory");
    put_text(out, LEFT, TOP - 14, "class=\"small\"", title);
    put_text(out, LEFT + PLOT_WIDTH / 2.0, TOP + PLOT_HEIGHT + 42, "text-anchor=\"middle\"",
             "share of all experts that memory holds, in bytes");
}

struct line {
    const char *policy, *colour;
    double end_x, end_y, name_y;
};

/* The rows of one policy and the first link, which come in the order of memory. */
static struct line draw_line(FILE *out, const struct simulate_row *rows, size_t n_rows, const char *policy,
                             const char *colour)
{
    struct line line = {.policy = policy, .colour = colour, .end_x = -1};
    const char *dash = strcmp(policy, "belady") == 0 ? " stroke-dasharray=\"6 4\"" : "";
    for (size_t i = 0; i < n_rows; i++) {
        if (strcmp(rows[i].policy, policy) != 0 || rows[i].link != rows[0].link)
            continue;
        double x = x_of(rows[i].share), y = y_of(hits_of(&rows[i]));
        if (line.end_x >= 0) {
            put(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" ", line.end_x, line.end_y, x, y);
            fprintf(out, "stroke=\"%s\" stroke-width=\"2\"%s/>\n", colour, dash);
        }
        put(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" ", x, y, 0, 0);
        fprintf(out, "fill=\"%s\"/>\n", colour);
        line.end_x = x;
        line.end_y = y;
    }
    line.name_y = line.end_y;
    return line;
}

/* Names at the right, in the order of their lines' ends and apart from each other. */
static void draw_names(FILE *out, struct line *lines, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k > 0 && lines[k].name_y < lines[k - 1].name_y; k--) {
            struct line line = lines[k];
            lines[k] = lines[k - 1];
            lines[k - 1] = line;
        }
    for (size_t i = 1; i < n; i++)
        lines[i].name_y = fmax(lines[i].name_y, lines[i - 1].name_y + NAME_HEIGHT);
    double beyond = n > 0 ? fmax(0, lines[n - 1].name_y - (TOP + PLOT_HEIGHT)) : 0;
    for (size_t i = 0; i < n; i++) {
        double x = LEFT + PLOT_WIDTH + 30, y = lines[i].name_y - beyond;
        put(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" ", lines[i].end_x + 5, lines[i].end_y,
            x - 4, y);
        fprintf(out, "stroke=\"%s\" stroke-opacity=\"0.5\"/>\n", lines[i].colour);
        char fill[40];
        snprintf(fill, sizeof fill, "style=\"fill:%s\"", lines[i].colour);
        put_text(out, x, y + 4, fill, lines[i].policy);
    }
}

static bool is_first_of_policy(const struct simulate_row *rows, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(rows[k].policy, rows[i].policy) == 0)
            return false;
    return true;
}

enum mb_status simulate_chart(const struct simulate_row *rows, size_t n_rows, const char *title,
                              const char *path, const char *trace_path, struct mb_error *err)
{
    struct cli_output_file output = {0};
    struct line lines[N_LINES_MAX];
    size_t n = 0;
    enum mb_status status = cli_output_open(&output, path, trace_path, err);
    if (status != MB_OK)
        return status;
    fprintf(output.file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" "
            "aria-label=\"hit rates of policies\">\n%s<rect class=\"back\" width=\"%d\" height=\"%d\"/>\n",
            WIDTH, HEIGHT, style, WIDTH, HEIGHT);
    draw_axes(output.file, title);
    for (size_t i = 0; i < n_rows && n < N_LINES_MAX; i++)
        if (is_first_of_policy(rows, i)) {
            lines[n] = draw_line(output.file, rows, n_rows, rows[i].policy,
                                 colours[n % (sizeof colours / sizeof *colours)]);
            n++;
        }
    draw_names(output.file, lines, n);
    fputs("</svg>\n", output.file);
    return cli_output_close(&output, MB_OK, err);
}
