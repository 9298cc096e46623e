/*
 * trace_row.h - a line of a trace file, whatever its format is, and what begins the file.
 */
#ifndef MB_OFFLOAD_TRACE_ROW_H
#define MB_OFFLOAD_TRACE_ROW_H

#include <moebius/offload.h>

enum { MB_TRACE_VERSION = 1 };

struct mb_trace_row {
    uint64_t sequence, token, layer;
    bool is_generated;
    size_t n;
    int32_t experts[MB_TRACE_USED_MAX];
    float gates[MB_TRACE_USED_MAX];
};

/* Each reads one line, without its end. Messages do not name the line. */
enum mb_status mb_trace_json_head(const char *line, size_t n, struct mb_trace **trace, struct mb_error *err);
enum mb_status mb_trace_json_row(const char *line, size_t n, struct mb_trace_row *row, struct mb_error *err);
enum mb_status mb_trace_csv_head(const char *line, size_t n, struct mb_trace **trace, struct mb_error *err);
enum mb_status mb_trace_csv_row(const char *line, size_t n, struct mb_trace_row *row, struct mb_error *err);

#define MB_TRACE_CSV_BEGIN "# moebius_trace "
#define MB_TRACE_CSV_HEADS "sequence,token,kind,layer,experts,gates"

#endif
