/*
 * libnvidia-ml.so.1 for tests: NVIDIA's management library as a JSON file tells it.
 *
 * SHARDGATE_NVML_PROFILE names the file. It is read again whenever it has changed, so that a test can lose a GPU, unload
 * the driver or let a call hang while somebody watches. What a profile does not tell is NVML_ERROR_NOT_SUPPORTED.
 *
 * Symbols, struct layouts and error codes are those of NVIDIA's nvml.h (API version 12 and 13); tests compare the sizes
 * with pynvml's and with those measured on a real driver. -DNVML_BEFORE_450 leaves out what drivers got since then.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "json.h"

#define API __attribute__((visibility("default")))
#define MOST_GPUS 64
#define MOST_PARTS 16

typedef int nvmlReturn_t;
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15, ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999,
};

/* A handle: a GPU, or (part >= 0) a MIG device of it; a GPU instance, or a compute instance in it. */
typedef struct handle { int gpu, part; } *nvmlDevice_t;
typedef struct handle *nvmlGpuInstance_t, *nvmlComputeInstance_t;
typedef struct events { bool registered[MOST_GPUS]; size_t told[MOST_GPUS]; } *nvmlEventSet_t;

typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct {
    char busIdLegacy[16];
    unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;
typedef struct { unsigned int pid; unsigned long long usedGpuMemory; unsigned int gpuInstanceId, computeInstanceId; } nvmlProcessInfo_t;
typedef struct {
    unsigned int multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount, sharedJpegCount, sharedOfaCount,
        gpuInstanceSliceCount, computeInstanceSliceCount;
    unsigned long long memorySizeMB;
} nvmlDeviceAttributes_t;
typedef union { double d; unsigned int ui; unsigned long ul; unsigned long long ull; long long sll; int si; unsigned short us; } nvmlValue_t;
typedef struct {
    unsigned int fieldId, scopeId;
    long long timestamp, latencyUsec;
    unsigned int valueType;
    nvmlReturn_t nvmlReturn;
    nvmlValue_t value;
} nvmlFieldValue_t;
typedef struct { unsigned char clusterUuid[16]; nvmlReturn_t status; unsigned int cliqueId; unsigned char state; } nvmlGpuFabricInfo_t;
typedef struct {
    unsigned int version;
    unsigned char clusterUuid[16];
    nvmlReturn_t status;
    unsigned int cliqueId;
    unsigned char state;
    unsigned int healthMask;
} nvmlGpuFabricInfo_v2_t;
typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType, eventData;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;
typedef struct {
    unsigned int id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount, copyEngineCount, decoderCount, encoderCount,
        jpegCount, ofaCount;
    unsigned long long memorySizeMB;
} nvmlGpuInstanceProfileInfo_t;
typedef struct {
    unsigned int id, sliceCount, instanceCount, multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount,
        sharedJpegCount, sharedOfaCount;
} nvmlComputeInstanceProfileInfo_t;
typedef struct { unsigned int start, size; } nvmlPlacement_t;
typedef struct { nvmlDevice_t device; unsigned int id, profileId; nvmlPlacement_t placement; } nvmlGpuInstanceInfo_t;
typedef struct {
    nvmlDevice_t device;
    nvmlGpuInstance_t gpuInstance;
    unsigned int id, profileId;
    nvmlPlacement_t placement;
} nvmlComputeInstanceInfo_t;

#define HAS_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type " is laid out as in nvml.h")
HAS_SIZE(nvmlMemory_t, 24);
HAS_SIZE(nvmlMemory_v2_t, 40);
HAS_SIZE(nvmlPciInfo_t, 68);
HAS_SIZE(nvmlProcessInfo_t, 24);
HAS_SIZE(nvmlDeviceAttributes_t, 40);
HAS_SIZE(nvmlFieldValue_t, 40);
HAS_SIZE(nvmlGpuFabricInfo_t, 28);
HAS_SIZE(nvmlGpuFabricInfo_v2_t, 36);
HAS_SIZE(nvmlEventData_t, 32);
HAS_SIZE(nvmlGpuInstanceProfileInfo_t, 48);
HAS_SIZE(nvmlComputeInstanceProfileInfo_t, 36);
HAS_SIZE(nvmlGpuInstanceInfo_t, 24);
HAS_SIZE(nvmlComputeInstanceInfo_t, 32);

#define VERSION(type, number) ((unsigned int)(sizeof(type) | ((number) << 24)))

/* ------------------------------------------------------------------------------------------------- the profile */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static json *profile;
static struct timespec changed;
static ino_t inode;
static unsigned int users;
static unsigned long long boot;
static struct handle devices[MOST_GPUS], parts[MOST_GPUS][MOST_PARTS];

static void load(void) {
    const char *path = getenv("SHARDGATE_NVML_PROFILE");
    struct stat found;
    if (!path || stat(path, &found)) {
        json_free(profile);
        profile = NULL;
        inode = 0;
        return;
    }
    if (found.st_ino == inode && found.st_mtim.tv_sec == changed.tv_sec && found.st_mtim.tv_nsec == changed.tv_nsec) return;
    FILE *file = fopen(path, "rb");
    if (!file) return;
    char *text = calloc(1, (size_t)found.st_size + 1);
    size_t got = fread(text, 1, (size_t)found.st_size, file);
    fclose(file);
    json *read = got == (size_t)found.st_size ? json_parse(text) : NULL;
    free(text);
    if (!read) {
        fprintf(stderr, "%s: no JSON\n", path);
        return;
    }
    json_free(profile);
    profile = read;
    inode = found.st_ino;
    changed = found.st_mtim;
}

static bool hangs(const char *function) {
    const json *list = json_member(profile, "hang");
    for (size_t place = 0; place < json_length(list); place++)
        if (!strcmp(json_text(json_item(list, place)), function)) return true;
    return false;
}

/* The lock is held when it returns, whatever it returns. */
static nvmlReturn_t begin(const char *function, bool opening) {
    pthread_mutex_lock(&lock);
    load();
    while (hangs(function)) {
        struct timespec pause = {0, 20 * 1000 * 1000};
        pthread_mutex_unlock(&lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&lock);
        load();
    }
    if (!profile) return DRIVER_NOT_LOADED;
    const json *failure = json_member(profile, "failure");
    if (failure) return (nvmlReturn_t)json_number(failure);
    if (!opening && (!users || boot != json_number(json_member(profile, "boot")))) return UNINITIALIZED;
    const json *error = json_member(json_member(profile, "errors"), function);
    return error ? (nvmlReturn_t)json_number(error) : SUCCESS;
}

static nvmlReturn_t end(nvmlReturn_t result) {
    pthread_mutex_unlock(&lock);
    return result;
}

/* What the profile says of a GPU: in its own entry, else in the one for all. */
static const json *of(int gpu, const char *key) {
    const json *own = json_member(json_item(json_member(profile, "gpus"), (size_t)gpu), key);
    return own ? own : json_member(json_member(profile, "gpu"), key);
}

static const json *part_of(nvmlDevice_t device) {
    return json_item(json_member(of(device->gpu, "mig"), "devices"), (size_t)device->part);
}

static bool is_handle(nvmlDevice_t device) {
    char *at = (char *)device;
    return (at >= (char *)devices && at < (char *)(devices + MOST_GPUS)) || (at >= (char *)parts && at < (char *)(parts + MOST_GPUS));
}

static nvmlReturn_t begin_device(const char *function, nvmlDevice_t device) {
    nvmlReturn_t result = begin(function, false);
    if (result) return result;
    if (!is_handle(device) || (size_t)device->gpu >= json_length(json_member(profile, "gpus"))) return INVALID_ARGUMENT;
    const json *error = of(device->gpu, "failure");
    if (!error) error = json_member(of(device->gpu, "errors"), function);
    return error ? (nvmlReturn_t)json_number(error) : SUCCESS;
}

#define BEGIN_DEVICE(device)                                   \
    do {                                                       \
        nvmlReturn_t begun = begin_device(__func__, (device)); \
        if (begun) return end(begun);                          \
    } while (0)
#define BEGIN()                                      \
    do {                                             \
        nvmlReturn_t begun = begin(__func__, false); \
        if (begun) return end(begun);                \
    } while (0)

static nvmlReturn_t give_number(const json *node, unsigned int *to) {
    if (!node) return end(NOT_SUPPORTED);
    *to = (unsigned int)json_number(node);
    return end(SUCCESS);
}

static nvmlReturn_t give_text(const json *node, char *to, unsigned int length) {
    const char *text = json_text(node);
    if (!text) return end(NOT_SUPPORTED);
    if (strlen(text) + 1 > length) return end(INSUFFICIENT_SIZE);
    strcpy(to, text);
    return end(SUCCESS);
}

/* --------------------------------------------------------------------------------------------------- the system */

API nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    nvmlReturn_t result = begin(__func__, true);
    if (result) return end(result);
    users++;
    boot = json_number(json_member(profile, "boot"));
    for (int gpu = 0; gpu < MOST_GPUS; gpu++) {
        devices[gpu] = (struct handle){gpu, -1};
        for (int part = 0; part < MOST_PARTS; part++) parts[gpu][part] = (struct handle){gpu, part};
    }
    return end(SUCCESS);
}

API nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

API nvmlReturn_t nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    if (!users) return end(UNINITIALIZED);
    users--;
    return end(SUCCESS);
}

API const char *nvmlErrorString(nvmlReturn_t result) {
    switch (result) {
        case SUCCESS: return "The operation was successful";
        case UNINITIALIZED: return "Uninitialized";
        case INVALID_ARGUMENT: return "Invalid Argument";
        case NOT_SUPPORTED: return "Not Supported";
        case NOT_FOUND: return "Not Found";
        case DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case TIMEOUT: return "Timeout";
        case GPU_IS_LOST: return "GPU is lost";
        default: return "Unknown Error";
    }
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    BEGIN();
    return give_text(json_member(profile, "driver"), version, length);
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
    BEGIN();
    return give_text(json_member(profile, "nvml"), version, length);
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    BEGIN();
    return give_number(json_member(profile, "cuda"), (unsigned int *)version);
}

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    BEGIN();
    const json *claimed = json_member(profile, "count");
    *count = claimed ? (unsigned int)json_number(claimed) : (unsigned int)json_length(json_member(profile, "gpus"));
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    BEGIN();
    if (index >= json_length(json_member(profile, "gpus")) || index >= MOST_GPUS) return end(INVALID_ARGUMENT);
    const json *error = json_member(of((int)index, "errors"), __func__);
    if (error) return end((nvmlReturn_t)json_number(error));
    *device = &devices[index];
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    BEGIN();
    for (size_t gpu = 0; gpu < json_length(json_member(profile, "gpus")) && gpu < MOST_GPUS; gpu++) {
        const char *found = json_text(of((int)gpu, "uuid"));
        if (found && !strcmp(found, uuid)) {
            *device = &devices[gpu];
            return end(SUCCESS);
        }
    }
    return end(NOT_FOUND);
}

/* ---------------------------------------------------------------------------------------------------- one GPU */

API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) {
    BEGIN_DEVICE(device);
    return give_text(device->part < 0 ? of(device->gpu, "name") : json_member(part_of(device), "name"), name, length);
}

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) {
    BEGIN_DEVICE(device);
    return give_text(device->part < 0 ? of(device->gpu, "uuid") : json_member(part_of(device), "uuid"), uuid, length);
}

API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index) {
    BEGIN_DEVICE(device);
    *index = (unsigned int)(device->part < 0 ? device->gpu : device->part);
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *number) {
    BEGIN_DEVICE(device);
    *number = (unsigned int)device->gpu;
    return end(SUCCESS);
}

static void fill_pci(nvmlPciInfo_t *pci, const char *bus_id) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->busId, sizeof pci->busId, "%s", bus_id);
    sscanf(bus_id, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xffff, pci->bus & 0xff, pci->device & 0xff);
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    BEGIN_DEVICE(device);
    const char *bus_id = json_text(of(device->gpu, "busId"));
    if (!bus_id) return end(NOT_SUPPORTED);
    fill_pci(pci, bus_id);
    pci->pciDeviceId = (unsigned int)json_number(of(device->gpu, "pciDeviceId"));
    pci->pciSubSystemId = (unsigned int)json_number(of(device->gpu, "pciSubSystemId"));
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    BEGIN_DEVICE(device);
    const json *pair = of(device->gpu, "computeCapability");
    if (!pair) return end(NOT_SUPPORTED);
    *major = (int)json_number(json_item(pair, 0));
    *minor = (int)json_number(json_item(pair, 1));
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned int *architecture) {
    BEGIN_DEVICE(device);
    return give_number(of(device->gpu, "architecture"), architecture);
}

API nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, unsigned int *brand) {
    BEGIN_DEVICE(device);
    return give_number(of(device->gpu, "brand"), brand);
}

API nvmlReturn_t nvmlDeviceGetVirtualizationMode(nvmlDevice_t device, unsigned int *mode) {
    BEGIN_DEVICE(device);
    return give_number(of(device->gpu, "virtualizationMode"), mode);
}

static const json *memory_of(nvmlDevice_t device) {
    return device->part < 0 ? of(device->gpu, "memory") : json_member(part_of(device), "memory");
}

/* The first version counts what is reserved as used. */
API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    BEGIN_DEVICE(device);
    const json *found = memory_of(device);
    if (!found) return end(NOT_SUPPORTED);
    memory->total = json_number(json_member(found, "total"));
    memory->used = json_number(json_member(found, "used")) + json_number(json_member(found, "reserved"));
    memory->free = memory->total - memory->used;
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int kind, unsigned int *clock) {
    BEGIN_DEVICE(device);
    return give_number(json_item(of(device->gpu, "maxClocks"), kind), clock);
}

API nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *limit) {
    BEGIN_DEVICE(device);
    return give_number(json_member(of(device->gpu, "power"), "enforced"), limit);
}

API nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned int *limit) {
    BEGIN_DEVICE(device);
    return give_number(json_member(of(device->gpu, "power"), "default"), limit);
}

API nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *least, unsigned int *most) {
    BEGIN_DEVICE(device);
    const json *power = of(device->gpu, "power");
    if (!json_member(power, "least")) return end(NOT_SUPPORTED);
    *least = (unsigned int)json_number(json_member(power, "least"));
    *most = (unsigned int)json_number(json_member(power, "most"));
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t device, unsigned int *generation) {
    BEGIN_DEVICE(device);
    return give_number(json_member(of(device->gpu, "pcie"), "generation"), generation);
}

API nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned int *width) {
    BEGIN_DEVICE(device);
    return give_number(json_member(of(device->gpu, "pcie"), "width"), width);
}

API nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned int *width) {
    BEGIN_DEVICE(device);
    return give_number(json_member(of(device->gpu, "pcie"), "currentWidth"), width);
}

API nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    BEGIN_DEVICE(device);
    const json *ecc = of(device->gpu, "ecc");
    if (!ecc) return end(NOT_SUPPORTED);
    *current = (unsigned int)json_number(json_member(ecc, "current"));
    *pending = (unsigned int)json_number(json_member(ecc, "pending"));
    return end(SUCCESS);
}

/* Lists of [corrected, uncorrected]. */
API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int kind, unsigned int counter, unsigned long long *errors) {
    BEGIN_DEVICE(device);
    const json *count = json_item(json_member(of(device->gpu, "ecc"), counter ? "aggregate" : "volatile"), kind);
    if (!count) return end(NOT_SUPPORTED);
    *errors = json_number(count);
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, unsigned int *pending) {
    BEGIN_DEVICE(device);
    return give_number(of(device->gpu, "retiredPagesPending"), pending);
}

API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    BEGIN_DEVICE(device);
    for (int place = 0; place < count; place++) {
        char key[16];
        snprintf(key, sizeof key, "%u", values[place].fieldId);
        const json *value = json_member(of(device->gpu, "fields"), key);
        values[place].nvmlReturn = value ? SUCCESS : NOT_SUPPORTED;
        values[place].valueType = 1; /* NVML_VALUE_TYPE_UNSIGNED_INT */
        values[place].value.ull = json_number(value);
    }
    return end(SUCCESS);
}

/* -------------------------------------------------------------------------------------------- links, pairs, fabric */

static const json *link_of(nvmlDevice_t device, unsigned int link) {
    return json_item(json_member(of(device->gpu, "nvlink"), "links"), link);
}

API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, unsigned int *active) {
    BEGIN_DEVICE(device);
    if (of(device->gpu, "nvlink") && !link_of(device, link)) return end(INVALID_ARGUMENT);
    return give_number(json_member(link_of(device, link), "state"), active);
}

API nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int link, unsigned int *version) {
    (void)link;
    BEGIN_DEVICE(device);
    return give_number(json_member(of(device->gpu, "nvlink"), "version"), version);
}

API nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link, nvmlPciInfo_t *pci) {
    BEGIN_DEVICE(device);
    const char *bus_id = json_text(json_member(link_of(device, link), "busId"));
    if (!bus_id) return end(NOT_SUPPORTED);
    fill_pci(pci, bus_id);
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link, unsigned int *kind) {
    BEGIN_DEVICE(device);
    return give_number(json_member(link_of(device, link), "remote"), kind);
}

/* "pairs" has what holds between any two, and under "between" what differs: {"gpus": [0, 1], ...}. */
static const json *pair_of(int one, int other, const char *key) {
    const json *pairs = json_member(profile, "pairs"), *between = json_member(pairs, "between");
    for (size_t place = 0; place < json_length(between); place++) {
        const json *each = json_item(between, place), *gpus = json_member(each, "gpus");
        int first = (int)json_number(json_item(gpus, 0)), second = (int)json_number(json_item(gpus, 1));
        if (((first == one && second == other) || (first == other && second == one)) && json_member(each, key))
            return json_member(each, key);
    }
    return json_member(pairs, key);
}

API nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t device, nvmlDevice_t other, unsigned int index, unsigned int *status) {
    static const char *const keys[] = {"read", "write", "nvlink", "atomics", "pci"};
    BEGIN_DEVICE(device);
    if (!is_handle(other) || index >= sizeof keys / sizeof *keys) return end(INVALID_ARGUMENT);
    return give_number(pair_of(device->gpu, other->gpu, keys[index]), status);
}

API nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device, nvmlDevice_t other, unsigned int *level) {
    BEGIN_DEVICE(device);
    if (!is_handle(other)) return end(INVALID_ARGUMENT);
    return give_number(pair_of(device->gpu, other->gpu, "path"), level);
}

/* --------------------------------------------------------------------------------------------------------- events */

API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    BEGIN();
    *set = calloc(1, sizeof **set);
    return end(SUCCESS);
}

API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    pthread_mutex_lock(&lock);
    free(set);
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *kinds) {
    BEGIN_DEVICE(device);
    const json *supported = of(device->gpu, "eventTypes");
    if (!supported) return end(NOT_SUPPORTED);
    *kinds = json_number(supported);
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long kinds, nvmlEventSet_t set) {
    (void)kinds;
    BEGIN_DEVICE(device);
    set->registered[device->gpu] = true;
    return end(SUCCESS);
}

/* Never waits: whoever asks here does so with no time to spend. */
API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int milliseconds) {
    (void)milliseconds;
    BEGIN();
    for (int gpu = 0; gpu < MOST_GPUS; gpu++) {
        const json *xid = json_item(of(gpu, "xids"), set->told[gpu]);
        if (!set->registered[gpu] || !xid) continue;
        set->told[gpu]++;
        *data = (nvmlEventData_t){&devices[gpu], 8 /* nvmlEventTypeXidCriticalError */, json_number(xid), ~0U, ~0U};
        return end(SUCCESS);
    }
    return end(TIMEOUT);
}

#ifndef NVML_BEFORE_450

API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    BEGIN();
    return give_number(json_member(profile, "cuda"), (unsigned int *)version);
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    BEGIN_DEVICE(device);
    if (memory->version != VERSION(nvmlMemory_v2_t, 2)) return end(ARGUMENT_VERSION_MISMATCH);
    const json *found = memory_of(device);
    if (!found) return end(NOT_SUPPORTED);
    memory->total = json_number(json_member(found, "total"));
    memory->reserved = json_number(json_member(found, "reserved"));
    memory->used = json_number(json_member(found, "used"));
    memory->free = memory->total - memory->used - memory->reserved;
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int words, unsigned long *set, unsigned int scope) {
    (void)scope;
    BEGIN_DEVICE(device);
    const json *node = of(device->gpu, "numaNode");
    if (!node) return end(NOT_SUPPORTED);
    unsigned long long number = json_number(node);
    memset(set, 0, words * sizeof *set);
    if (number / 64 < words) set[number / 64] = 1UL << number % 64;
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t device, unsigned int *node) {
    BEGIN_DEVICE(device);
    return give_number(of(device->gpu, "memoryNumaNode"), node);
}

API nvmlReturn_t nvmlDeviceGetRemappedRows(
    nvmlDevice_t device, unsigned int *correctable, unsigned int *uncorrectable, unsigned int *pending, unsigned int *failed) {
    BEGIN_DEVICE(device);
    const json *rows = of(device->gpu, "remappedRows");
    if (!rows) return end(NOT_SUPPORTED);
    *correctable = (unsigned int)json_number(json_item(rows, 0));
    *uncorrectable = (unsigned int)json_number(json_item(rows, 1));
    *pending = (unsigned int)json_number(json_item(rows, 2));
    *failed = (unsigned int)json_number(json_item(rows, 3));
    return end(SUCCESS);
}

static void parse_cluster(const json *fabric, unsigned char *uuid) {
    const char *text = json_text(json_member(fabric, "cluster"));
    memset(uuid, 0, 16);
    for (int byte = 0; text && *text && byte < 16; text++) {
        if (*text == '-') continue;
        unsigned int value;
        if (sscanf(text++, "%2x", &value) != 1) return;
        uuid[byte++] = (unsigned char)value;
    }
}

API nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *info) {
    BEGIN_DEVICE(device);
    const json *fabric = of(device->gpu, "fabric");
    if (!fabric) return end(NOT_SUPPORTED);
    parse_cluster(fabric, info->clusterUuid);
    info->status = (nvmlReturn_t)json_number(json_member(fabric, "status"));
    info->cliqueId = (unsigned int)json_number(json_member(fabric, "clique"));
    info->state = (unsigned char)json_number(json_member(fabric, "state"));
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfo_v2_t *info) {
    BEGIN_DEVICE(device);
    if (info->version != VERSION(nvmlGpuFabricInfo_v2_t, 2)) return end(ARGUMENT_VERSION_MISMATCH);
    const json *fabric = of(device->gpu, "fabric");
    if (!fabric) return end(NOT_SUPPORTED);
    parse_cluster(fabric, info->clusterUuid);
    info->status = (nvmlReturn_t)json_number(json_member(fabric, "status"));
    info->cliqueId = (unsigned int)json_number(json_member(fabric, "clique"));
    info->state = (unsigned char)json_number(json_member(fabric, "state"));
    info->healthMask = (unsigned int)json_number(json_member(fabric, "healthMask"));
    return end(SUCCESS);
}

static nvmlReturn_t running(nvmlDevice_t device, const char *kind, unsigned int *count, nvmlProcessInfo_t *infos) {
    const json *list = json_member(of(device->gpu, "processes"), kind);
    if (!list) return end(NOT_SUPPORTED);
    unsigned int room = *count, length = (unsigned int)json_length(list);
    *count = length;
    if (!length) return end(SUCCESS);
    if (room < length || !infos) return end(INSUFFICIENT_SIZE);
    for (unsigned int place = 0; place < length; place++) {
        const json *each = json_item(list, place), *used = json_member(each, "used");
        const json *instance = json_member(each, "gpuInstance"), *compute = json_member(each, "computeInstance");
        infos[place] = (nvmlProcessInfo_t){
            .pid = (unsigned int)json_number(json_member(each, "pid")),
            .usedGpuMemory = used ? json_number(used) : ~0ULL, /* NVML_VALUE_NOT_AVAILABLE */
            .gpuInstanceId = instance ? (unsigned int)json_number(instance) : ~0U,
            .computeInstanceId = compute ? (unsigned int)json_number(compute) : ~0U,
        };
    }
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {
    BEGIN_DEVICE(device);
    return running(device, "compute", count, infos);
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {
    BEGIN_DEVICE(device);
    return running(device, "compute", count, infos);
}

API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {
    BEGIN_DEVICE(device);
    return running(device, "graphics", count, infos);
}

API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {
    BEGIN_DEVICE(device);
    return running(device, "graphics", count, infos);
}

/* ----------------------------------------------------------------------------------------------------------- MIG */

API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    BEGIN_DEVICE(device);
    const json *mig = of(device->gpu, "mig");
    if (!mig || device->part >= 0) return end(NOT_SUPPORTED);
    *current = (unsigned int)json_number(json_member(mig, "current"));
    *pending = (unsigned int)json_number(json_member(mig, "pending"));
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
    BEGIN_DEVICE(device);
    const json *mig = of(device->gpu, "mig");
    *count = mig && json_number(json_member(mig, "current")) ? (unsigned int)json_number(json_member(mig, "maximum")) : 0;
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *part) {
    BEGIN_DEVICE(device);
    const json *list = json_member(of(device->gpu, "mig"), "devices");
    if (index >= MOST_PARTS || !json_item(list, index)) return end(NOT_FOUND);
    *part = &parts[device->gpu][index];
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t part, nvmlDevice_t *device) {
    BEGIN_DEVICE(part);
    if (part->part < 0) return end(INVALID_ARGUMENT);
    *device = &devices[part->gpu];
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_part) {
    BEGIN_DEVICE(device);
    *is_part = device->part >= 0;
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id) {
    BEGIN_DEVICE(device);
    if (device->part < 0) return end(INVALID_ARGUMENT);
    return give_number(json_member(part_of(device), "gpuInstance"), id);
}

API nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id) {
    BEGIN_DEVICE(device);
    if (device->part < 0) return end(INVALID_ARGUMENT);
    return give_number(json_member(part_of(device), "computeInstance"), id);
}

API nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
    BEGIN_DEVICE(device);
    const json *found = json_member(device->part < 0 ? NULL : part_of(device), "attributes");
    if (!found) return end(NOT_SUPPORTED);
    *attributes = (nvmlDeviceAttributes_t){
        .multiprocessorCount = (unsigned int)json_number(json_member(found, "multiprocessors")),
        .sharedCopyEngineCount = (unsigned int)json_number(json_member(found, "copyEngines")),
        .sharedDecoderCount = (unsigned int)json_number(json_member(found, "decoders")),
        .sharedEncoderCount = (unsigned int)json_number(json_member(found, "encoders")),
        .sharedJpegCount = (unsigned int)json_number(json_member(found, "jpegs")),
        .sharedOfaCount = (unsigned int)json_number(json_member(found, "ofas")),
        .gpuInstanceSliceCount = (unsigned int)json_number(json_member(found, "gpuSlices")),
        .computeInstanceSliceCount = (unsigned int)json_number(json_member(found, "computeSlices")),
        .memorySizeMB = json_number(json_member(found, "memoryMib")),
    };
    return end(SUCCESS);
}

/* Here every GPU instance has one compute instance, so that a MIG device stands for both: GPU Feature Discovery asks for them. */

/* nvml.h: NVML_GPU_INSTANCE_PROFILE_n_SLICE and NVML_COMPUTE_INSTANCE_PROFILE_n_SLICE. */
static int profile_of_slices(unsigned long long slices) {
    switch (slices) {
        case 1: return 0;
        case 2: return 1;
        case 3: return 2;
        case 4: return 3;
        case 7: return 4;
        default: return -1;
    }
}

static unsigned long long slices_of(nvmlDevice_t part, const char *key) {
    return json_number(json_member(json_member(part_of(part), "attributes"), key));
}

API nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instance) {
    BEGIN_DEVICE(device);
    const json *list = json_member(of(device->gpu, "mig"), "devices");
    for (size_t place = 0; place < json_length(list); place++)
        if (json_number(json_member(json_item(list, place), "gpuInstance")) == id) {
            *instance = &parts[device->gpu][place];
            return end(SUCCESS);
        }
    return end(NOT_FOUND);
}

API nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *info) {
    BEGIN_DEVICE(instance);
    const json *part = part_of(instance);
    *info = (nvmlGpuInstanceInfo_t){
        .device = &devices[instance->gpu],
        .id = (unsigned int)json_number(json_member(part, "gpuInstance")),
        .profileId = (unsigned int)json_number(json_member(part, "profileId")),
    };
    return end(SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int profile, nvmlGpuInstanceProfileInfo_t *info) {
    BEGIN_DEVICE(device);
    const json *list = json_member(of(device->gpu, "mig"), "devices");
    for (int place = 0; place < (int)json_length(list); place++) {
        nvmlDevice_t part = &parts[device->gpu][place];
        if (profile_of_slices(slices_of(part, "gpuSlices")) != (int)profile) continue;
        memset(info, 0, sizeof *info);
        info->id = (unsigned int)json_number(json_member(part_of(part), "profileId"));
        info->sliceCount = (unsigned int)slices_of(part, "gpuSlices");
        info->multiprocessorCount = (unsigned int)slices_of(part, "multiprocessors");
        info->memorySizeMB = slices_of(part, "memoryMib");
        return end(SUCCESS);
    }
    return end(NOT_SUPPORTED);
}

API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t instance, unsigned int id, nvmlComputeInstance_t *compute) {
    BEGIN_DEVICE(instance);
    if (json_number(json_member(part_of(instance), "computeInstance")) != id) return end(NOT_FOUND);
    *compute = instance;
    return end(SUCCESS);
}

API nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t compute, nvmlComputeInstanceInfo_t *info) {
    BEGIN_DEVICE(compute);
    *info = (nvmlComputeInstanceInfo_t){
        .device = &devices[compute->gpu],
        .gpuInstance = compute,
        .id = (unsigned int)json_number(json_member(part_of(compute), "computeInstance")),
        .profileId = (unsigned int)profile_of_slices(slices_of(compute, "computeSlices")),
    };
    return end(SUCCESS);
}

API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(
    nvmlGpuInstance_t instance, unsigned int profile, unsigned int engines, nvmlComputeInstanceProfileInfo_t *info) {
    BEGIN_DEVICE(instance);
    if (engines || profile_of_slices(slices_of(instance, "computeSlices")) != (int)profile) return end(NOT_SUPPORTED);
    memset(info, 0, sizeof *info);
    info->id = profile;
    info->sliceCount = (unsigned int)slices_of(instance, "computeSlices");
    info->multiprocessorCount = (unsigned int)slices_of(instance, "multiprocessors");
    return end(SUCCESS);
}

#endif
