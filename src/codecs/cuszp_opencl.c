/*
 * cuszp_opencl.c - cuSZp as OpenCL kernels, on the first device of the machine; libOpenCL.so.1 is loaded when
 * it is first used.
 *
 * cuSZp's own kernel finds where a block's payload begins while others still work, by waiting for its
 * neighbours; OpenCL promises no such progress.  So there are three kernels: rates, a sum over them,
 * payloads.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "cuszp.h"
#include "functions.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define CUSZP_SOURCE(...) #__VA_ARGS__
static const char block_source[] =
#include "cuszp_block.h"
    ;

static const char head_source[] = "#pragma OPENCL FP_CONTRACT OFF\n"
                                  "#define GLOBAL __global\n"
                                  "#define FUNCTION\n";

static const char kernel_source[] = CUSZP_SOURCE(
    FUNCTION uint in_block(uint n, uint b) { return n - b * 32 < 32 ? n - b * 32 : 32; }

    __kernel void cuszp_rates(__global const float *w, uint n, float inverse, uint mode,
                              __global uchar *rates) {
        struct cuszp_block block;
        uint b = (uint)get_global_id(0);
        cuszp_gather(w + b * 32, in_block(n, b), inverse, mode, &block);
        rates[b] = (uchar)cuszp_rate_byte(&block);
    }

    __kernel void cuszp_starts(__global const uchar *rates, uint n_blocks, uint mode, __global uint *starts) {
        uint start = 0;
        for (uint b = 0; b < n_blocks; b++) {
            starts[b] = start;
            start += cuszp_payload(rates[b], mode);
        }
        starts[n_blocks] = start;
    }

    __kernel void cuszp_payloads(__global const float *w, uint n, float inverse, uint mode,
                                 __global const uint *starts, __global uchar *payloads) {
        struct cuszp_block block;
        uint b = (uint)get_global_id(0);
        cuszp_gather(w + b * 32, in_block(n, b), inverse, mode, &block);
        cuszp_put(&block, payloads + starts[b]);
    }

    __kernel void cuszp_weights(__global const uchar *payloads, __global const uchar *rates,
                                __global const uint *starts, uint n, float eps, uint mode,
                                __global float *w) {
        uint b = (uint)get_global_id(0);
        cuszp_decode(payloads + starts[b], rates[b], in_block(n, b), eps, mode, w + b * 32);
    });

/* Of CL/cl.h, version 1.2. Handles are pointers; 0 is success. */
enum { DEVICE_ALL = -1, READ_ONLY = 4, READ_WRITE = 1, TRUE_ = 1, N_KERNELS = 4 };
typedef void *handle;

static struct {
    int (*platforms)(unsigned n_max, handle *platforms, unsigned *n);
    int (*devices)(handle platform, uint64_t type, unsigned n_max, handle *devices, unsigned *n);
    handle (*context)(const intptr_t *properties, unsigned n, const handle *devices, void *notify, void *ctx,
                      int *);
    handle (*queue)(handle context, handle device, uint64_t properties, int *status);
    handle (*program)(handle context, unsigned n, const char **texts, const size_t *lengths, int *status);
    int (*build)(handle program, unsigned n, const handle *devices, const char *options, void *notify,
                 void *ctx);
    handle (*kernel)(handle program, const char *name, int *status);
    int (*argument)(handle kernel, unsigned index, size_t nbytes, const void *value);
    handle (*buffer)(handle context, uint64_t flags, size_t nbytes, void *host, int *status);
    int (*release)(handle buffer);
    int (*run)(handle queue, handle kernel, unsigned n_dims, const size_t *offset, const size_t *global,
               const size_t *local, unsigned n_events, const handle *events, handle *event);
    int (*read)(handle queue, handle buffer, unsigned is_blocking, size_t pos, size_t nbytes, void *to,
                unsigned, const handle *, handle *);
    int (*write)(handle queue, handle buffer, unsigned is_blocking, size_t pos, size_t nbytes,
                 const void *from, unsigned, const handle *, handle *);
} cl;

static const struct {
    const char *name;
    void *function;
} functions[] = {
    {"clGetPlatformIDs", &cl.platforms},
    {"clGetDeviceIDs", &cl.devices},
    {"clCreateContext", &cl.context},
    {"clCreateCommandQueue", &cl.queue},
    {"clCreateProgramWithSource", &cl.program},
    {"clBuildProgram", &cl.build},
    {"clCreateKernel", &cl.kernel},
    {"clSetKernelArg", &cl.argument},
    {"clCreateBuffer", &cl.buffer},
    {"clReleaseMemObject", &cl.release},
    {"clEnqueueNDRangeKernel", &cl.run},
    {"clEnqueueReadBuffer", &cl.read},
    {"clEnqueueWriteBuffer", &cl.write},
};

enum { RATES, STARTS, PAYLOADS, WEIGHTS };
static const char *const kernel_names[N_KERNELS] = {"cuszp_rates", "cuszp_starts", "cuszp_payloads",
                                                    "cuszp_weights"};

/* The device of the whole program. Kernels hold their arguments, so one matrix at a time is coded. */
static struct {
    handle context, queue, kernels[N_KERNELS];
    pthread_mutex_t lock;
} gpu = {.lock = PTHREAD_MUTEX_INITIALIZER};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct mb_error missing;

/* ---------------------------------------------------------------- loading */

static void refuse(const char *what, int status)
{
    mb_error_set(&missing, MB_UNSUPPORTED, "OpenCL: %s (%d)", what, status);
}

static bool find_device(handle *device)
{
    enum { N_MAX = 8 };
    handle platforms[N_MAX];
    unsigned n = 0, n_devices = 0;
    if (cl.platforms(N_MAX, platforms, &n) != 0)
        return false;
    for (unsigned i = 0; i < n && i < N_MAX; i++)
        if (cl.devices(platforms[i], (uint64_t)(uint32_t)DEVICE_ALL, 1, device, &n_devices) == 0 &&
            n_devices > 0)
            return true;
    return false;
}

static void build(handle device)
{
    const char *texts[] = {head_source, block_source, "\n", kernel_source};
    int status;
    gpu.context = cl.context(NULL, 1, &device, NULL, NULL, &status);
    gpu.queue = status == 0 ? cl.queue(gpu.context, device, 0, &status) : NULL;
    handle program = status == 0 ? cl.program(gpu.context, 4, texts, NULL, &status) : NULL;
    if (status == 0)
        status = cl.build(program, 1, &device, "-cl-std=CL1.2", NULL, NULL);
    for (size_t k = 0; k < N_KERNELS && status == 0; k++)
        gpu.kernels[k] = cl.kernel(program, kernel_names[k], &status);
    if (status != 0)
        refuse("the device does not compile the kernels", status);
}

static void load(void)
{
    void *library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    handle device = NULL;
    if (library == NULL) {
        mb_error_set(
            &missing, MB_UNSUPPORTED,
            "OpenCL: libOpenCL.so.1 is not installed (Debian: ocl-icd-libopencl1 and pocl-opencl-icd)");
        return;
    }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = dlsym(library, functions[i].name);
        if (function == NULL) {
            mb_error_set(&missing, MB_UNSUPPORTED, "OpenCL: libOpenCL.so.1 has no %s", functions[i].name);
            return;
        }
        memcpy(functions[i].function, &function, sizeof function);
    }
    if (find_device(&device))
        build(device);
    else
        mb_error_set(&missing, MB_UNSUPPORTED, "OpenCL: there is no device (Debian: pocl-opencl-icd is one)");
}

enum mb_status mb_codec_opencl_check(struct mb_error *err)
{
    pthread_once(&once, load);
    return mb_pass_on(err, missing.status, &missing);
}

/* ---------------------------------------------------------------- coding */

/* Buffers of a matrix on the device, and the first failure. */
struct job {
    handle weights, rates, starts, payloads;
    size_t n, n_blocks;
    int status;
};

static handle new_buffer(struct job *job, size_t nbytes)
{
    return job->status == 0 ? cl.buffer(gpu.context, READ_WRITE, nbytes, NULL, &job->status) : NULL;
}

static void read_buffer(struct job *job, handle buffer, size_t pos, size_t nbytes, void *to)
{
    if (job->status == 0 && nbytes > 0)
        job->status = cl.read(gpu.queue, buffer, TRUE_, pos, nbytes, to, 0, NULL, NULL);
}

static void write_buffer(struct job *job, handle buffer, size_t nbytes, const void *from)
{
    if (job->status == 0 && nbytes > 0)
        job->status = cl.write(gpu.queue, buffer, TRUE_, 0, nbytes, from, 0, NULL, NULL);
}

struct argument {
    size_t nbytes;
    const void *value;
};
#define ARGUMENT(variable)            \
    {                                 \
        sizeof(variable), &(variable) \
    }

static void run_kernel(struct job *job, int kernel, size_t n_items, const struct argument *arguments,
                       unsigned n)
{
    for (unsigned i = 0; i < n && job->status == 0; i++)
        job->status = cl.argument(gpu.kernels[kernel], i, arguments[i].nbytes, arguments[i].value);
    if (job->status == 0)
        job->status = cl.run(gpu.queue, gpu.kernels[kernel], 1, NULL, &n_items, NULL, 0, NULL, NULL);
}

static void begin_job(struct job *job, size_t n, size_t payload_nbytes)
{
    *job = (struct job){.n = n, .n_blocks = mb_cuszp_n_blocks(n)};
    job->weights = new_buffer(job, n * sizeof(float));
    job->rates = new_buffer(job, job->n_blocks);
    job->starts = new_buffer(job, (job->n_blocks + 1) * 4);
    job->payloads = new_buffer(job, payload_nbytes + 4);
}

static enum mb_status end_job(struct job *job, struct mb_error *err)
{
    handle const buffers[] = {job->weights, job->rates, job->starts, job->payloads};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (buffers[i] != NULL)
            cl.release(buffers[i]);
    return job->status == 0 ? MB_OK
                            : mb_fail(err, MB_UNSUPPORTED, "OpenCL: the device failed (%d)", job->status);
}

static void find_starts(struct job *job, unsigned mode)
{
    unsigned n_blocks = (unsigned)job->n_blocks;
    const struct argument arguments[] = {ARGUMENT(job->rates), ARGUMENT(n_blocks), ARGUMENT(mode),
                                         ARGUMENT(job->starts)};
    run_kernel(job, STARTS, 1, arguments, 4);
}

static enum mb_status encode(int mode_, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err)
{
    struct job job;
    size_t n_all = matrix->n_rows * matrix->n_cols, n_rates = mb_cuszp_n_rates(n_all);
    unsigned n = (unsigned)n_all, mode = (unsigned)mode_, payload_nbytes = 0;
    float eps = mb_float_below(matrix->eps), inverse = 0.5F / eps;
    size_t payload_cap = 5 * mb_cuszp_n_blocks(n_all) * MB_CUSZP_BLOCK;
    if (out_cap < MB_CUSZP_HEAD_NBYTES + n_rates + payload_cap || payload_cap > UINT32_MAX)
        return mb_fail(err, MB_NO_SPACE, "cuszp: the output has too little space");
    mb_store_u32(out, mb_bits_of_float(eps));
    memset(out + MB_CUSZP_HEAD_NBYTES, 0, n_rates);
    pthread_mutex_lock(&gpu.lock);
    begin_job(&job, n_all, payload_cap);
    write_buffer(&job, job.weights, n_all * sizeof(float), matrix->values);
    const struct argument rates[] = {ARGUMENT(job.weights), ARGUMENT(n), ARGUMENT(inverse), ARGUMENT(mode),
                                     ARGUMENT(job.rates)};
    run_kernel(&job, RATES, job.n_blocks, rates, 5);
    find_starts(&job, mode);
    const struct argument payloads[] = {ARGUMENT(job.weights), ARGUMENT(n),          ARGUMENT(inverse),
                                        ARGUMENT(mode),        ARGUMENT(job.starts), ARGUMENT(job.payloads)};
    run_kernel(&job, PAYLOADS, job.n_blocks, payloads, 6);
    read_buffer(&job, job.rates, 0, job.n_blocks, out + MB_CUSZP_HEAD_NBYTES);
    read_buffer(&job, job.starts, 4 * job.n_blocks, 4, &payload_nbytes);
    if (payload_nbytes <= payload_cap)
        read_buffer(&job, job.payloads, 0, payload_nbytes, out + MB_CUSZP_HEAD_NBYTES + n_rates);
    *out_nbytes = MB_CUSZP_HEAD_NBYTES + n_rates + payload_nbytes;
    enum mb_status status = end_job(&job, err);
    pthread_mutex_unlock(&gpu.lock);
    return status;
}

static enum mb_status decode(int mode_, const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                             float *out, struct mb_error *err)
{
    struct job job;
    size_t n_all = n_rows * n_cols, n_head = MB_CUSZP_HEAD_NBYTES + mb_cuszp_n_rates(n_all);
    MB_TRY(mb_cuszp_check(bytes, nbytes, n_all, mode_, err));
    unsigned n = (unsigned)n_all, mode = (unsigned)mode_;
    float eps = mb_float_of_bits(mb_load_u32(bytes));
    pthread_mutex_lock(&gpu.lock);
    begin_job(&job, n_all, nbytes - n_head);
    write_buffer(&job, job.rates, job.n_blocks, bytes + MB_CUSZP_HEAD_NBYTES);
    write_buffer(&job, job.payloads, nbytes - n_head, bytes + n_head);
    find_starts(&job, mode);
    const struct argument weights[] = {
        ARGUMENT(job.payloads), ARGUMENT(job.rates), ARGUMENT(job.starts), ARGUMENT(n),
        ARGUMENT(eps),          ARGUMENT(mode),      ARGUMENT(job.weights)};
    run_kernel(&job, WEIGHTS, job.n_blocks, weights, 7);
    read_buffer(&job, job.weights, 0, n_all * sizeof(float), out);
    enum mb_status status = end_job(&job, err);
    pthread_mutex_unlock(&gpu.lock);
    return status;
}

const struct mb_codec_functions mb_codec_cuszp_opencl = {.encode = encode, .decode = decode};
