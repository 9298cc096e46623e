/*
 * bench_codecs_chart.c - the rows of "bench codecs" as a picture: bits against the bound, and rates.
 *
 * Left: a line for each codec that takes a bound, a mark for each other one at the bound that it would have
 * met.  Right: rates on one thread, at the bound nearest to 30 %.
 */
#include "base/number.h"
#include "bench_codecs.h"
#include "cli.h"
#include "output_file.h"
#include <math.h>
#include <string.h>

enum { WIDTH = 1180, HEIGHT = 640, LEFT = 60, TOP = 70, PLOT_WIDTH = 520, PLOT_HEIGHT = 500 };
enum { BARS_LEFT = 800, BARS_WIDTH = 320, N_SERIES_MAX = 64 };
static const double bits_max = 12, usual_share = 0.3;

/* Colours that differ in the dark, in print and for most colour-blind people; ours is the strongest. */
static const char *const colours[] = {"#d6336c", "#1c7ed6", "#2b8a3e", "#e8590c", "#7048e8",
                                      "#0c8599", "#a07000", "#868e96", "#5c940d", "#c2255c"};

static const char style[] =
    "<style>text{font:13px system-ui,sans-serif;fill:#222}.small{font-size:11px}.grid{stroke:#ccc}"
    ".axis{stroke:#555}.back{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}"
    ".axis{stroke:#999}.back{fill:#16181c}}</style>\n";

struct plot {
    FILE *out;
    const struct bench_codecs *bench;
    double low, high; /* bounds as shares of the mean that the axis shows, logarithmic */
};

/* Without a locale's comma. */
static void put(const struct plot *plot, const char *format, double a, double b, double c, double d)
{
    char text[512];
    mb_number_format(text, sizeof text, format, a, b, c, d);
    fputs(text, plot->out);
}

static void put_text(const struct plot *plot, double x, double y, const char *attributes, const char *text)
{
    put(plot, "<text x=\"%.1f\" y=\"%.1f\" ", x, y, 0, 0);
    fprintf(plot->out, "%s>%s</text>\n", attributes, text);
}

static double x_of(const struct plot *plot, double share)
{
    double inside = fmin(fmax(share, plot->low), plot->high);
    return LEFT + PLOT_WIDTH * log(inside / plot->low) / log(plot->high / plot->low);
}

static double y_of(double bits)
{
    return TOP + PLOT_HEIGHT * (1 - fmin(bits, bits_max) / bits_max);
}

/* The same figures twice: OpenCL's bytes are the CPU's, and SZ3 by range differs in the spelling alone. */
static bool is_drawn(const struct bench_row *row)
{
    size_t n = strlen(row->codec->name);
    return row->n_matrices > 0 && row->codec->takes != MB_CODEC_TAKES_RANGE &&
           !(n > 3 && strcmp(row->codec->name + n - 3, "-cl") == 0);
}

static bool has_share(const struct bench_row *row)
{
    return is_drawn(row) && row->has_bound && row->bound.kind == MB_BOUND_MEAN_ABS;
}

/* Codecs in order of their rows, so that one has the same colour everywhere. */
static const char *colour_of(const struct plot *plot, const struct mb_codec *codec)
{
    size_t n = 0;
    for (size_t i = 0; i < plot->bench->n_rows && plot->bench->rows[i].codec != codec; i++)
        n += has_share(&plot->bench->rows[i]) &&
             (i == 0 || plot->bench->rows[i - 1].codec != plot->bench->rows[i].codec);
    return colours[n % (sizeof colours / sizeof *colours)];
}

static void find_axis(struct plot *plot)
{
    plot->low = 0.02;
    plot->high = 2;
    for (size_t i = 0; i < plot->bench->n_rows; i++) {
        const struct bench_row *row = &plot->bench->rows[i];
        double share = has_share(row) ? row->bound.value : is_drawn(row) && !row->has_bound ? row->met : 0;
        if (share >= 0.01 && share <= 4) {
            plot->low = fmin(plot->low, share);
            plot->high = fmax(plot->high, share);
        }
    }
}

static void draw_axes(const struct plot *plot)
{
    static const double shares[] = {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4};
    for (int bits = 0; bits <= (int)bits_max; bits += 2) {
        char text[16];
        snprintf(text, sizeof text, "%d", bits);
        put(plot, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT,
            LEFT + PLOT_WIDTH, y_of(bits), y_of(bits));
        put_text(plot, LEFT - 8, y_of(bits) + 4, "text-anchor=\"end\"", text);
    }
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        char text[16];
        if (shares[i] < plot->low * 0.999 || shares[i] > plot->high * 1.001)
            continue;
        snprintf(text, sizeof text, "%.0f%%", 100 * shares[i]);
        put(plot, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
            x_of(plot, shares[i]), x_of(plot, shares[i]), TOP, TOP + PLOT_HEIGHT);
        put_text(plot, x_of(plot, shares[i]), TOP + PLOT_HEIGHT + 18, "text-anchor=\"middle\"", text);
    }
    put_text(plot, LEFT, TOP - 40, "font-weight=\"bold\"", "Bits a weight, everything counted, at a bound");
    put_text(plot, LEFT + PLOT_WIDTH / 2.0, TOP + PLOT_HEIGHT + 40, "text-anchor=\"middle\"",
             "bound, or worst error of codecs without one (o), in % of the mean absolute weight");
}

static void draw_lines(const struct plot *plot)
{
    const struct bench_row *rows = plot->bench->rows;
    for (size_t i = 0; i < plot->bench->n_rows; i++) {
        if (!has_share(&rows[i]))
            continue;
        const char *colour = colour_of(plot, rows[i].codec);
        bool is_ours = strcmp(rows[i].codec->name, "ours") == 0;
        double x = x_of(plot, rows[i].bound.value), y = y_of(rows[i].bits);
        if (i + 1 < plot->bench->n_rows && rows[i + 1].codec == rows[i].codec && has_share(&rows[i + 1])) {
            put(plot, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" ", x, y,
                x_of(plot, rows[i + 1].bound.value), y_of(rows[i + 1].bits));
            fprintf(plot->out, "stroke=\"%s\" stroke-width=\"%s\"/>\n", colour, is_ours ? "3.5" : "1.6");
        }
        put(plot, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" ", x, y, is_ours ? 4.5 : 2.5, 0);
        fprintf(plot->out, "fill=\"%s\"/>\n", colour);
    }
}

struct place {
    double x, y, width; /* of a name */
};

static bool is_free(const struct place *taken, size_t n, struct place at)
{
    for (size_t k = 0; k < n; k++)
        if (at.x < taken[k].x + taken[k].width && taken[k].x < at.x + at.width &&
            fabs(taken[k].y - at.y) < 11)
            return false;
    return n < N_SERIES_MAX;
}

/* A name beside its mark: right, left, above or below, where no other name is; else nowhere. */
static void name_mark(const struct plot *plot, double x, double y, const char *name, struct place *taken,
                      size_t *n)
{
    double width = 6.3 * (double)strlen(name);
    const struct place places[] = {{x + 7, y + 4, width},
                                   {x - 7 - width, y + 4, width},
                                   {x - width / 2, y - 8, width},
                                   {x - width / 2, y + 16, width}};
    for (size_t k = 0; k < 4; k++) {
        bool is_inside = places[k].x > LEFT && places[k].x + width < LEFT + PLOT_WIDTH + 60;
        if (is_inside && is_free(taken, *n, places[k])) {
            taken[(*n)++] = places[k];
            put_text(plot, places[k].x, places[k].y, "class=\"small\"", name);
            return;
        }
    }
}

/* Codecs without a bound; what loses nothing is a dashed line. */
static void draw_marks(const struct plot *plot)
{
    struct place taken[N_SERIES_MAX];
    size_t n = 0;
    for (size_t i = 0; i < plot->bench->n_rows; i++) {
        const struct bench_row *row = &plot->bench->rows[i];
        if (!is_drawn(row) || row->has_bound || !isfinite(row->met))
            continue;
        double x = x_of(plot, row->met), y = y_of(row->bits);
        if (row->codec->takes == MB_CODEC_LOSSLESS) {
            put(plot,
                "<line class=\"axis\" stroke-dasharray=\"5 4\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
                "y2=\"%.1f\"/>\n",
                LEFT, LEFT + PLOT_WIDTH, y, y);
            name_mark(plot, LEFT + 10, y - 10, row->codec->name, taken, &n);
            continue;
        }
        put(plot, "<circle class=\"axis\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"none\"/>\n", x, y, 0, 0);
        name_mark(plot, x, y, row->codec->name, taken, &n);
    }
}

static void draw_legend(const struct plot *plot)
{
    size_t n = 0;
    for (size_t i = 0; i < plot->bench->n_rows; i++) {
        const struct bench_row *row = &plot->bench->rows[i];
        if (!has_share(row) || (i > 0 && plot->bench->rows[i - 1].codec == row->codec))
            continue;
        double x = LEFT + PLOT_WIDTH - 130, y = TOP + 16 + 17.0 * (double)n++;
        put(plot, "<rect x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"4\" ", x - 20, y - 6, 0, 0);
        fprintf(plot->out, "fill=\"%s\"/>\n", colour_of(plot, row->codec));
        put_text(plot, x, y, "", row->codec->name);
    }
}

/* ---------------------------------------------------------------- rates */

/* The row of a codec that is nearest to the usual bound, or its only one. */
static bool is_bar(const struct plot *plot, size_t i)
{
    const struct bench_row *rows = plot->bench->rows;
    if (rows[i].n_matrices == 0 || rows[i].codec->takes == MB_CODEC_TAKES_RANGE)
        return false;
    for (size_t k = 0; k < plot->bench->n_rows; k++)
        if (rows[k].codec == rows[i].codec && rows[i].has_bound &&
            fabs(log(rows[k].bound.value / usual_share)) < fabs(log(rows[i].bound.value / usual_share)))
            return false;
    return true;
}

static double bar_of(double rate)
{
    return fmax(BARS_WIDTH * (log10(rate) - 6) / 5, 1); /* 1 M to 100 G weights a second */
}

static void draw_bar(const struct plot *plot, double y, double height, double rate, const char *colour)
{
    put(plot, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" ", BARS_LEFT, y, bar_of(rate),
        height);
    fprintf(plot->out, "fill=\"%s\"/>\n", colour);
}

static const char *rate_text(double rate, char text[24])
{
    mb_number_format(text, 24, rate < 1e9 ? "%.0f M" : "%.1f G", rate < 1e9 ? rate * 1e-6 : rate * 1e-9);
    return text;
}

static void draw_bars(const struct plot *plot)
{
    size_t n = 0, k = 0;
    for (size_t i = 0; i < plot->bench->n_rows; i++)
        n += is_bar(plot, i);
    double pitch = fmin(34, (double)(PLOT_HEIGHT + 30) / (double)(n > 0 ? n : 1)), height = pitch * 0.38;
    put_text(plot, BARS_LEFT - 140, TOP - 40, "font-weight=\"bold\"",
             "Weights a second on one thread, logarithmic");
    put_text(plot, BARS_LEFT - 140, TOP - 22, "class=\"small\"",
             "decode (upper) and encode (lower), at the bound nearest to 30 %");
    for (size_t i = 0; i < plot->bench->n_rows; i++) {
        const struct bench_row *row = &plot->bench->rows[i];
        if (!is_bar(plot, i))
            continue;
        double y = TOP + pitch * (double)k++;
        put_text(plot, BARS_LEFT - 8, y + pitch * 0.55, "class=\"small\" text-anchor=\"end\"",
                 row->codec->name);
        bool is_ours = strcmp(row->codec->name, "ours") == 0;
        draw_bar(plot, y, height, row->decode_rate[ONE_THREAD], is_ours ? "#d6336c" : "#1c7ed6");
        draw_bar(plot, y + height, height, row->encode_rate[ONE_THREAD], is_ours ? "#f0a5bd" : "#90bfe8");
        char decode[24], encode[24], both[64];
        snprintf(both, sizeof both, "%s, %s", rate_text(row->decode_rate[ONE_THREAD], decode),
                 rate_text(row->encode_rate[ONE_THREAD], encode));
        put_text(plot, BARS_LEFT + bar_of(fmax(row->decode_rate[0], row->encode_rate[0])) + 5,
                 y + pitch * 0.55, "class=\"small\"", both);
    }
}

enum mb_status bench_codecs_chart(const struct bench_codecs *bench, const char *path, struct mb_error *err)
{
    struct cli_output_file output = {0};
    enum mb_status status = cli_output_open(&output, path, "", err);
    if (status != MB_OK)
        return status;
    struct plot plot = {.out = output.file, .bench = bench};
    find_axis(&plot);
    fprintf(plot.out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" "
            "aria-label=\"bits a weight and rates of codecs\">\n%s"
            "<rect class=\"back\" width=\"%d\" height=\"%d\"/>\n",
            WIDTH, HEIGHT, style, WIDTH, HEIGHT);
    draw_axes(&plot);
    draw_lines(&plot);
    draw_marks(&plot);
    draw_legend(&plot);
    draw_bars(&plot);
    fputs("</svg>\n", plot.out);
    return cli_output_close(&output, MB_OK, err);
}
