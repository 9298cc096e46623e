/*
 * part_checks.c - see part_checks.h.
 */
#include "part_checks.h"
#include "base/error.h"
#include "disk_reads.h"

enum mb_status mb_part_checks_make(struct mb_part_checks *checks, struct mb_error *err)
{
    for (size_t i = 0; i < MB_PART_CHECKS; i++)
        if ((checks->at[i].check = mb_blob_check_new()) == NULL)
            return mb_fail_memory(err, "experts");
    return MB_OK;
}

void mb_part_checks_free(struct mb_part_checks *checks)
{
    for (size_t i = 0; i < MB_PART_CHECKS; i++)
        mb_blob_check_free(checks->at[i].check);
}

void mb_part_check_take(struct mb_part_checks *checks, struct mb_read_request *request)
{
    const struct mb_stored_piece *piece = &request->expert->pieces[0];
    if (request->expert->n_pieces != 1 || !piece->is_blob || piece->at != piece->read_at ||
        piece->read_nbytes <= MB_READ_RANGE_NBYTES)
        return;
    for (size_t i = 0; i < MB_PART_CHECKS && request->part == NULL; i++)
        if (checks->at[i].request == NULL)
            request->part = &checks->at[i];
    if (request->part == NULL)
        return;
    request->part->request = request;
    request->part->n_there = 0;
    mb_blob_check_begin(request->part->check, request->memory.bytes + piece->at, piece->tensor->nbytes,
                        request->memory.tables + piece->tables_at, piece->tables_nbytes);
}

void mb_part_check_leave(struct mb_read_request *request)
{
    if (request->part != NULL)
        request->part->request = NULL;
    request->part = NULL;
}

void mb_part_check_go_on(struct mb_part_check *part)
{
    const uint64_t nbytes = part->request->expert->pieces[0].tensor->nbytes;
    mb_blob_check_add(part->check, part->n_there < nbytes ? part->n_there : nbytes);
}
