/*
 * cuszp_block.h - a block of cuSZp, once for C and once as text for OpenCL: one source, equal bytes.
 *
 * A file that includes this defines CUSZP_SOURCE: in C it leaves the code as it is, for OpenCL it makes a
 * string of it.  So there are no preprocessor lines in it.  GLOBAL is OpenCL's address
 * space, FUNCTION is 'static' in C.
 *
 * A block of 32 weights is q = round(w / 2 eps), or the differences of neighbouring q (the first from 0).
 * Its rate r is the bits of the largest magnitude; the rate byte is r, or, where the first magnitude is kept
 * apart, 0x80 | (its bytes - 1) << 5 | r.  The payload is: the first magnitude where it is apart (1 to 4
 * bytes, lowest first), 32 signs, r planes of 32 bits, lowest first; in each four bytes weight 0 is the top
 * bit of the first.  All q are 0: the rate byte alone.
 */
CUSZP_SOURCE(
    struct cuszp_block {
        uint magnitudes[32]; /* of q or differences; the first is 0 where it is apart */
        uint signs;          /* bit 31 is weight 0 */
        uint first;          /* the first magnitude, where it is apart */
        uint n_first;        /* its bytes; 0: it is not apart */
        uint rate;
    };

    /* Beyond 2^29 steps q stays there: the bound is lost, and sums of two do not overflow. */
    FUNCTION int cuszp_quantise(float w, float inverse) {
        float x = w * inverse;
        float inside = !(x < 536870912.0f) ? 536870912.0f : !(x > -536870912.0f) ? -536870912.0f : x;
        int q = (int)(inside + 0.5f);
        return inside < -0.5f ? q - 1 : q;
    }

    FUNCTION uint cuszp_bits(uint x) {
        uint n = 0;
        while (x != 0) {
            x >>= 1;
            n++;
        }
        return n;
    }

    FUNCTION uint cuszp_payload(uint rate_byte, uint mode) {
        uint rate = rate_byte & (mode == 2 ? 31u : 127u);
        if (mode == 2 && rate_byte >= 128u)
            return 4 + (rate_byte >> 5 & 3u) + 1 + 4 * rate;
        return rate == 0 ? 0 : 4 + 4 * rate;
    }

    FUNCTION uint cuszp_rate_byte(const struct cuszp_block *block) {
        return block->n_first > 0 ? 128u | (block->n_first - 1) << 5 | block->rate : block->rate;
    }

    /* Weights [0, n) of a block, n <= 32; the others count as 0. */
    FUNCTION void cuszp_gather(GLOBAL const float *w, uint n, float inverse, uint mode,
                               struct cuszp_block *block) {
        int before = 0;
        uint all = 0;
        uint others = 0;
        block->signs = 0;
        block->first = 0;
        block->n_first = 0;
        for (uint i = 0; i < 32; i++) {
            int q = i < n ? cuszp_quantise(w[i], inverse) : 0;
            int value = i < n && mode != 0 ? q - before : q;
            uint magnitude = value < 0 ? (uint)(-value) : (uint)value;
            before = q;
            block->magnitudes[i] = magnitude;
            block->signs |= value < 0 ? 1u << (31 - i) : 0u;
            all |= magnitude;
            others |= i > 0 ? magnitude : 0u;
        }
        block->rate = cuszp_bits(all);
        if (mode == 2) {
            uint rate = cuszp_bits(others);
            uint n_first = (cuszp_bits(block->magnitudes[0]) + 7) / 8;
            uint together = block->rate > 0 ? 4 + 4 * block->rate : 0;
            if (together > 4 + 4 * rate + n_first) {
                block->rate = rate;
                block->first = block->magnitudes[0];
                block->n_first = n_first;
                block->magnitudes[0] = 0;
            }
        }
    }

    FUNCTION void cuszp_put_word(uint word, GLOBAL uchar *out) {
        out[0] = (uchar)(word >> 24);
        out[1] = (uchar)(word >> 16);
        out[2] = (uchar)(word >> 8);
        out[3] = (uchar)word;
    }

    FUNCTION uint cuszp_get_word(GLOBAL const uchar *bytes) {
        return (uint)bytes[0] << 24 | (uint)bytes[1] << 16 | (uint)bytes[2] << 8 | (uint)bytes[3];
    }

    FUNCTION void cuszp_put(const struct cuszp_block *block, GLOBAL uchar *out) {
        if (block->rate == 0 && block->n_first == 0)
            return;
        for (uint k = 0; k < block->n_first; k++)
            *out++ = (uchar)(block->first >> (8 * k));
        cuszp_put_word(block->signs, out);
        for (uint plane = 0; plane < block->rate; plane++) {
            uint word = 0;
            for (uint i = 0; i < 32; i++)
                word |= (block->magnitudes[i] >> plane & 1u) << (31 - i);
            out += 4;
            cuszp_put_word(word, out);
        }
    }

    /* Weights [0, n) of the block whose payload is given. */
    FUNCTION void cuszp_decode(GLOBAL const uchar *bytes, uint rate_byte, uint n, float eps, uint mode,
                               GLOBAL float *out) {
        uint magnitudes[32];
        uint rate = rate_byte & (mode == 2 ? 31u : 127u);
        uint n_first = mode == 2 && rate_byte >= 128u ? (rate_byte >> 5 & 3u) + 1 : 0u;
        uint first = 0;
        uint signs = 0;
        int before = 0;
        for (uint i = 0; i < 32; i++)
            magnitudes[i] = 0;
        for (uint k = 0; k < n_first; k++)
            first |= (uint)(*bytes++) << (8 * k);
        if (rate > 0 || n_first > 0)
            signs = cuszp_get_word(bytes);
        for (uint plane = 0; plane < rate; plane++) {
            bytes += 4;
            uint word = cuszp_get_word(bytes);
            for (uint i = 0; i < 32; i++)
                magnitudes[i] |= (word >> (31 - i) & 1u) << plane;
        }
        magnitudes[0] |= first;
        for (uint i = 0; i < n; i++) {
            uint signed_value = (signs >> (31 - i) & 1u) != 0 ? 0u - magnitudes[i] : magnitudes[i];
            int q = (int)(signed_value + (mode != 0 ? (uint)before : 0u));
            before = q;
            out[i] = (float)q * eps * 2;
        }
    })
