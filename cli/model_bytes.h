/*
 * model_bytes.h - how many bytes of a model folder are experts, one by one, and how many are always needed.
 */
#ifndef MOEBIUS_CLI_MODEL_BYTES_H
#define MOEBIUS_CLI_MODEL_BYTES_H

#include <moebius/checkpoint.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed: not open. */
struct cli_model_bytes {
    size_t n_layers, n_experts; /* layers with routed experts; the most that one has */
    uint32_t *layers;           /* [n_layers] as in tensor names */
    uint64_t *experts;          /* [n_layers * n_experts] as they lie in the files */
    uint64_t experts_nbytes;    /* of all of them */
    uint64_t always_nbytes;     /* weights of the text model beside them */
    uint64_t
        embedding_nbytes; /* of these, the table of which a token reads one row; 0: it is the head, too */
    uint64_t shared_nbytes, head_nbytes; /* of always_nbytes: shared experts; the output head */
    uint64_t coded_nbytes;               /* of always_nbytes without that table: what is coded */
};

/* MB_UNSUPPORTED: the model has no routed experts. */
enum mb_status cli_model_bytes_open(const struct mb_checkpoint *ckpt, struct cli_model_bytes *bytes,
                                    struct mb_error *err);
void cli_model_bytes_close(struct cli_model_bytes *bytes);

#endif
