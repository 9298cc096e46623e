/*
 * sz3.c - SZ3, the real library, loaded when it is first used from the extension module of the Python package
 * pysz, which exports the library's C++ functions.
 *
 * SZ3's settings are a C++ object, struct config below.  Its constructor is the library's own, and what it
 * has made is compared with what this file knows of the layout before anything is changed in it; then a small
 * matrix has to come back within its bound.  Another layout or version is refused by name.
 *
 * The module needs the Python library of its version in memory; no Python code runs.  What SZ3 throws would
 * end the program, so it gets nothing but finite weights, enough memory, and its own bytes.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "functions.h"
#include <dlfcn.h>
#include <glob.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* SZ3::Config of versions 3.3 and 3.4, as x86-64 and ARM64 lay it out. */
struct config {
    uint32_t magic, data_version;
    char n_dims;
    size_t *dims, *dims_end, *dims_cap; /* a std::vector */
    size_t n;
    uint8_t algorithm, bound_mode;
    double abs_bound, rel_bound, psnr_bound, norm_bound;
    bool openmp;
    int n_bins, block;
    uint8_t prediction_dims, data_type;
    bool lorenzo, lorenzo2, regression, regression2;
    uint8_t interpolation, direction;
    int anchor_stride;
    double alpha, beta;
};

enum { HEAD_NBYTES = 16, ROOM_NBYTES = 1024, BOUND_ABS = 0, BOUND_RANGE = 1, INTERPOLATION_AND_LORENZO = 1 };
enum { BLOCK_1D = 128, BLOCK_2D = 16, PATH_NBYTES = 1024 };
#define MAGIC 0xF342F310u
#define VERSION(major, minor, patch) ((uint32_t)(major) << 24 | (minor) << 16 | (patch) << 8)

/* Of the data format, which the library's constructor says. */
static const uint32_t versions[] = {VERSION(3, 3, 2), VERSION(3, 4, 0)};

/* An object that the constructor has filled; with room, since later versions may have more members. */
union object {
    struct config config;
    uint8_t room[ROOM_NBYTES];
};

static struct {
    void (*construct)(void *object);
    size_t (*compress)(const void *object, const float *values, char *out, size_t cap);
    void (*decompress)(void *object, const char *bytes, size_t nbytes, float **out);
    void (*delete)(void *memory); /* C++'s, of vectors that the library has made */
    union object fresh;
} sz3;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct mb_error missing;

/* ---------------------------------------------------------------- coding */

static size_t encode_with(const struct mb_codec_matrix *matrix, int algorithm, bool by_range, double bound,
                          uint8_t *out, size_t out_cap)
{
    union object object = sz3.fresh;
    size_t dims[2] = {matrix->n_rows, matrix->n_cols};
    bool is_flat = matrix->n_rows == 1 || matrix->n_cols == 1;
    if (is_flat)
        dims[0] = matrix->n_rows * matrix->n_cols;
    struct config *config = &object.config;
    config->n_dims = is_flat ? 1 : 2;
    config->dims = dims;
    config->dims_end = config->dims_cap = dims + config->n_dims;
    config->n = matrix->n_rows * matrix->n_cols;
    config->prediction_dims = (uint8_t)config->n_dims;
    config->block = is_flat ? BLOCK_1D : BLOCK_2D;
    config->algorithm = (uint8_t)algorithm;
    config->bound_mode = by_range ? BOUND_RANGE : BOUND_ABS;
    config->abs_bound = by_range ? config->abs_bound : bound;
    config->rel_bound = by_range ? bound : config->rel_bound;
    return sz3.compress(&object, matrix->values, (char *)out, out_cap);
}

static double range_of(const struct mb_codec_matrix *matrix)
{
    double lo = (double)matrix->values[0], hi = lo;
    for (size_t i = 1; i < matrix->n_rows * matrix->n_cols; i++) {
        lo = (double)matrix->values[i] < lo ? (double)matrix->values[i] : lo;
        hi = (double)matrix->values[i] > hi ? (double)matrix->values[i] : hi;
    }
    return hi - lo;
}

static enum mb_status encode(int mode, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err)
{
    bool by_range = (mode & MB_SZ3_RANGE) != 0;
    double range = by_range ? range_of(matrix) : 1;
    /* All weights alike have no range to take a fraction of. */
    double bound = range > 0 ? matrix->eps / range : matrix->eps;
    *out_nbytes = encode_with(matrix, mode & ~MB_SZ3_RANGE, by_range && range > 0, bound, out, out_cap);
    return *out_nbytes > HEAD_NBYTES ? MB_OK : mb_fail(err, MB_BAD_DATA, "sz3: no bytes came back");
}

static enum mb_status decode(int mode, const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                             float *out, struct mb_error *err)
{
    (void)mode;
    if (nbytes <= HEAD_NBYTES || mb_load_u32(bytes) != MAGIC ||
        mb_load_u32(bytes + 4) != sz3.fresh.config.data_version ||
        mb_load_u64(bytes + 8) >= nbytes - HEAD_NBYTES)
        return mb_fail(err, MB_BAD_DATA, "sz3: the bytes are not of this library, or damaged");
    union object object = sz3.fresh;
    struct config *config = &object.config;
    config->dims = config->dims_end = config->dims_cap = NULL;
    float *values = out;
    sz3.decompress(&object, (const char *)bytes, nbytes, &values);
    bool is_right = config->n == n_rows * n_cols && values == out;
    if (config->dims != NULL)
        sz3.delete(config->dims);
    return is_right ? MB_OK : mb_fail(err, MB_BAD_DATA, "sz3: the bytes are of another shape");
}

const struct mb_codec_functions mb_codec_sz3 = {.encode = encode, .decode = decode};

/* ---------------------------------------------------------------- loading */

/* Whether the constructor has left what it does in the versions that this file knows. */
static bool is_known_layout(const struct config *c)
{
    return c->magic == MAGIC && c->n_dims == 1 && c->dims != NULL && c->dims_end == c->dims + 1 &&
           c->dims[0] == 1 && c->n == 1 && c->algorithm == INTERPOLATION_AND_LORENZO &&
           c->bound_mode == BOUND_ABS && c->abs_bound == 1e-3 && c->rel_bound == 0 && c->psnr_bound == 0 &&
           c->norm_bound == 0 && !c->openmp && c->n_bins == 65536 && c->block == BLOCK_1D &&
           c->prediction_dims == 1 && c->data_type == 0 && c->lorenzo && !c->lorenzo2 && c->regression &&
           !c->regression2 && c->interpolation == 1 && c->direction == 0 && c->anchor_stride == -1 &&
           c->alpha == 1.25 && c->beta == 2.0;
}

static bool is_known_version(uint32_t version)
{
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        if (versions[i] == version)
            return true;
    return false;
}

/* Whether a small matrix comes back within its bound, for each algorithm. */
static bool works(void)
{
    enum { ROWS = 24, COLS = 40, OUT_NBYTES = 32768 };
    static const int modes[] = {MB_SZ3_LORENZO, MB_SZ3_DEFAULT, MB_SZ3_INTERPOLATION, MB_SZ3_NOPRED,
                                MB_SZ3_NOPRED | MB_SZ3_RANGE};
    float values[ROWS * COLS], decoded[ROWS * COLS];
    uint8_t bytes[OUT_NBYTES];
    for (size_t i = 0; i < ROWS * COLS; i++)
        values[i] = (float)((i * 2654435761u >> 8) % 2001) / 1000.F - 1;
    const struct mb_codec_matrix matrix = {
        .weights = values, .values = values, .n_rows = ROWS, .n_cols = COLS, .eps = 0.05};
    for (size_t k = 0; k < sizeof modes / sizeof *modes; k++) {
        size_t nbytes;
        memset(decoded, 0, sizeof decoded);
        if (encode(modes[k], &matrix, bytes, sizeof bytes, &nbytes, NULL) != MB_OK || nbytes > sizeof bytes ||
            decode(modes[k], bytes, nbytes, ROWS, COLS, decoded, NULL) != MB_OK)
            return false;
        for (size_t i = 0; i < ROWS * COLS; i++)
            if (!(fabs((double)values[i] - (double)decoded[i]) <= 0.05001))
                return false;
    }
    return true;
}

/* In the order in which the library's own uses of a name are bound: a program's own operator delete is first.
 */
static void *symbol(void *library, const char *name)
{
    void *function = dlsym(RTLD_DEFAULT, name);
    return function != NULL ? function : dlsym(library, name);
}

/* "sz.cpython-311-x86_64-linux-gnu.so" needs libpython3.11.so.1.0. */
static bool load_python(const char *path)
{
    const char *tag = strstr(path, ".cpython-");
    unsigned minor;
    char name[64];
    if (tag == NULL)
        return true; /* a library of its own */
    if (sscanf(tag, ".cpython-3%u", &minor) != 1)
        return false;
    snprintf(name, sizeof name, "libpython3.%u.so.1.0", minor);
    if (dlopen(name, RTLD_NOW | RTLD_GLOBAL) != NULL)
        return true;
    mb_error_set(&missing, MB_UNSUPPORTED, "sz3: %.512s needs %s (Debian: libpython3.%u)", path, name, minor);
    return false;
}

static const char cannot[] = "sz3: %.512s is no SZ3 that is known here (pysz 1.1 is)";

static void use(const char *path)
{
    if (!load_python(path))
        return;
    void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (library == NULL) {
        mb_error_set(&missing, MB_UNSUPPORTED, "sz3: %.512s", dlerror());
        return;
    }
    /* SZ3::Config::Config(), SZ_compress<float>, SZ_decompress<float>, operator delete */
    void *const functions[] = {symbol(library, "_ZN3SZ36ConfigC1IJEEEDpT_"),
                               symbol(library, "_Z11SZ_compressIfEmRKN3SZ36ConfigEPKT_Pcm"),
                               symbol(library, "_Z13SZ_decompressIfEvRN3SZ36ConfigEPKcmRPT_"),
                               symbol(library, "_ZdlPv")};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (functions[i] == NULL) {
            mb_error_set(&missing, MB_UNSUPPORTED, cannot, path);
            return;
        }
    memcpy(&sz3.construct, &functions[0], sizeof functions[0]);
    memcpy(&sz3.compress, &functions[1], sizeof functions[1]);
    memcpy(&sz3.decompress, &functions[2], sizeof functions[2]);
    memcpy(&sz3.delete, &functions[3], sizeof functions[3]);
    sz3.construct(&sz3.fresh);
    uint32_t version = sz3.fresh.config.data_version;
    if (!is_known_layout(&sz3.fresh.config))
        mb_error_set(&missing, MB_UNSUPPORTED, cannot, path);
    else if (!is_known_version(version))
        mb_error_set(&missing, MB_UNSUPPORTED,
                     "sz3: %.512s writes data version %u.%u.%u, which is not known here", path, version >> 24,
                     version >> 16 & 255, version >> 8 & 255);
    else if (!works())
        mb_error_set(&missing, MB_UNSUPPORTED, "sz3: %.512s does not keep a bound, so it is not used", path);
}

/* Where pip and Debian put Python packages; $HOME and the virtual environment that is active count too. */
static bool find(char path[PATH_NBYTES])
{
    static const char *const folders[] = {"/lib/python3*/site-packages", "/lib/python3*/dist-packages",
                                          "/.local/lib/python3*/site-packages",
                                          "/local/lib/python3*/dist-packages"};
    const char *const roots[] = {getenv("VIRTUAL_ENV"), getenv("HOME"), "/usr/local", "/usr"};
    for (size_t r = 0; r < sizeof roots / sizeof *roots; r++)
        for (size_t f = 0; f < sizeof folders / sizeof *folders && roots[r] != NULL; f++) {
            char pattern[PATH_NBYTES];
            glob_t found;
            int n = snprintf(pattern, sizeof pattern, "%s%s/pysz/sz.cpython-3*.so", roots[r], folders[f]);
            if (n < 0 || (size_t)n >= sizeof pattern)
                continue;
            bool is_found = glob(pattern, 0, NULL, &found) == 0 && strlen(found.gl_pathv[0]) < PATH_NBYTES;
            if (is_found)
                snprintf(path, PATH_NBYTES, "%s", found.gl_pathv[0]);
            globfree(&found);
            if (is_found)
                return true;
        }
    return false;
}

static void load(void)
{
    char path[PATH_NBYTES];
    const char *given = getenv("MOEBIUS_SZ3");
    if (given != NULL && given[0] != '\0')
        use(given);
    else if (find(path))
        use(path);
    else
        mb_error_set(
            &missing, MB_UNSUPPORTED,
            "sz3: not found; install the Python package pysz 1.1, or set MOEBIUS_SZ3 to its sz.cpython-*.so");
}

enum mb_status mb_codec_sz3_check(struct mb_error *err)
{
    pthread_once(&once, load);
    return mb_pass_on(err, missing.status, &missing);
}
