/* Output plugin `cfile`: appends `id operationType db.collection`, one line per event, to the file `path`.
 *
 * Shows the whole border from C: `deliver` only queues the batch, a second thread writes it and completes its token later.
 * A batch may be read until its token is completed, and not an instant longer. */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tailwater_plugin.h"

#define STR(text) {(const uint8_t *)(text), sizeof(text) - 1}
#define QUEUE_MAX 256 /* batches; the host never has more in flight than the output's `concurrency` */

typedef struct {
    const tw_host *host;
    char *path;
    int file;
    pthread_t writer;
    bool writing; /* `writer` runs */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct { const tw_batch *batch; uint64_t token; } queue[QUEUE_MAX];
    size_t first, count;
    bool busy;    /* the writer has a batch in hand */
    bool closing; /* the writer ends when the queue is empty */
} cfile;

static tw_str str(const char *text) {
    tw_str result = {(const uint8_t *)text, strlen(text)};
    return result;
}

static void say(const tw_sink *sink, const char *reason) {
    if (sink != NULL && sink->write != NULL) sink->write(sink->ctx, (const uint8_t *)reason, strlen(reason));
}

static void complete(const tw_host *host, uint64_t token, tw_verdict verdict, const char *reason) {
    tw_completion completion = {0};
    completion.struct_size = sizeof completion;
    completion.verdict = verdict;
    completion.message = str(reason);
    completion.result_stride = sizeof(tw_event_result);
    host->complete(host->ctx, token, &completion);
}

/* The value of `path` in {"path":"..."}. The host has checked the schema: an object with that one string. NULL: see `*reason`. */
static char *read_path(tw_str json, const char **reason) {
    const char *at = (const char *)json.ptr, *end = at + json.len;
    static const char key[] = "\"path\"";
    *reason = "path is missing";
    while ((size_t)(end - at) >= sizeof key && memcmp(at, key, sizeof key - 1) != 0) at++;
    if ((size_t)(end - at) < sizeof key) return NULL;
    at += sizeof key - 1;
    while (at < end && (*at == ' ' || *at == ':')) at++;
    if (at == end || *at++ != '"') return NULL;
    char *path = malloc((size_t)(end - at) + 1), *out = path;
    *reason = "out of memory";
    if (path == NULL) return NULL;
    for (; at < end && *at != '"'; at++) {
        if (*at == '\\') {
            at++;
            *reason = "path holds an escape that this plugin cannot read: use plain characters, \\\" or \\\\";
            if (at == end || (*at != '"' && *at != '\\' && *at != '/')) return free(path), NULL;
        }
        *out++ = *at;
    }
    *out = 0;
    *reason = "path is empty";
    if (at == end || out == path) return free(path), NULL;
    return path;
}

static tw_status validate(const tw_validate_args *args) {
    const char *reason;
    if (args == NULL) return TW_E_INVALID;
    char *path = read_path(args->options_json, &reason);
    if (path == NULL) return say(args->error, reason), TW_E_OPTIONS;
    free(path);
    return TW_OK;
}

static tw_status create(const tw_create_args *args, tw_instance **out) {
    const char *reason;
    if (args == NULL || out == NULL || args->host == NULL || args->host->complete == NULL) return TW_E_INVALID;
    char *path = read_path(args->options_json, &reason);
    if (path == NULL) return say(args->error, reason), TW_E_OPTIONS;
    cfile *self = calloc(1, sizeof *self);
    if (self == NULL) return free(path), say(args->error, "out of memory"), TW_E_INTERNAL;
    self->host = args->host;
    self->path = path;
    self->file = -1;
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->changed, NULL);
    *out = (tw_instance *)self;
    return TW_OK;
}

/* Grows `*buffer` as needed. False: out of memory. */
static bool append(char **buffer, size_t *len, size_t *cap, tw_str text, char after) {
    if (*len + text.len + 1 > *cap) {
        size_t wanted = (*len + text.len + 1) * 2;
        char *grown = realloc(*buffer, wanted);
        if (grown == NULL) return false;
        *buffer = grown;
        *cap = wanted;
    }
    if (text.len > 0) memcpy(*buffer + *len, text.ptr, text.len);
    *len += text.len;
    (*buffer)[(*len)++] = after;
    return true;
}

/* NULL where the whole batch was written, else why not. */
static const char *write_batch(int file, const tw_batch *batch) {
    char *buffer = NULL;
    size_t len = 0, cap = 0, done = 0;
    const char *reason = NULL;
    off_t before = lseek(file, 0, SEEK_END);
    for (uint32_t i = 0; i < batch->len && reason == NULL; i++) {
        /* By the host's stride: its events may be longer than ours. */
        const tw_event *event = (const tw_event *)(const void *)(batch->events + (size_t)i * batch->event_stride);
        if (!append(&buffer, &len, &cap, event->id, ' ') || !append(&buffer, &len, &cap, event->operation_type, ' ') ||
            !append(&buffer, &len, &cap, event->db, '.') || !append(&buffer, &len, &cap, event->coll, '\n'))
            reason = "out of memory";
    }
    while (reason == NULL && done < len) {
        ssize_t written = write(file, buffer + done, len - done);
        if (written >= 0) done += (size_t)written;
        else if (errno != EINTR) reason = errno == ENOSPC ? "write: the disk is full" : "write failed";
    }
    /* The batch comes again: half a line must not stay before it. Where it cannot be taken back, say so. */
    if (reason != NULL && done > 0 && ftruncate(file, before) != 0) reason = "write failed and left half a line";
    free(buffer);
    return reason;
}

static void *run_writer(void *arg) {
    cfile *self = arg;
    pthread_mutex_lock(&self->lock);
    for (;;) {
        while (self->count == 0 && !self->closing) pthread_cond_wait(&self->changed, &self->lock);
        if (self->count == 0) break;
        const tw_batch *batch = self->queue[self->first].batch;
        uint64_t token = self->queue[self->first].token;
        self->first = (self->first + 1) % QUEUE_MAX;
        self->count--;
        self->busy = true;
        pthread_mutex_unlock(&self->lock);

        const char *reason = write_batch(self->file, batch);
        complete(self->host, token, reason == NULL ? TW_ACK : TW_RETRY, reason == NULL ? "" : reason);
        /* `batch` is gone from here on. */

        pthread_mutex_lock(&self->lock);
        self->busy = false;
        pthread_cond_broadcast(&self->changed);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

static tw_status start(tw_instance *instance, uint64_t token) {
    cfile *self = (cfile *)instance;
    if (self == NULL || self->writing) return TW_E_INVALID;
    if (self->file < 0) self->file = open(self->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (self->file < 0) {
        complete(self->host, token, TW_FATAL, errno == ENOENT ? "open path: its folder does not exist" : "open path failed");
    } else if (pthread_create(&self->writer, NULL, run_writer, self) != 0) {
        complete(self->host, token, TW_RETRY, "no thread to write with");
    } else {
        self->writing = true;
        complete(self->host, token, TW_ACK, "");
    }
    return TW_OK;
}

static tw_status deliver(tw_instance *instance, const tw_batch *batch, uint64_t token) {
    cfile *self = (cfile *)instance;
    if (self == NULL || batch == NULL || !self->writing || batch->event_stride < TW_EVENT_SIZE_MIN) return TW_E_INVALID;
    pthread_mutex_lock(&self->lock);
    bool taken = self->count < QUEUE_MAX;
    if (taken) {
        size_t last = (self->first + self->count++) % QUEUE_MAX;
        self->queue[last].batch = batch;
        self->queue[last].token = token;
        pthread_cond_broadcast(&self->changed);
    }
    pthread_mutex_unlock(&self->lock);
    if (!taken) complete(self->host, token, TW_RETRY, "too many batches at once");
    return TW_OK;
}

/* Waits for the writer: what it has in hand is one write to a file. A plugin with slower work would look at `deadline_ms`. */
static tw_status stop(tw_instance *instance, uint64_t deadline_ms, uint64_t token) {
    cfile *self = (cfile *)instance;
    (void)deadline_ms;
    if (self == NULL) return TW_E_INVALID;
    pthread_mutex_lock(&self->lock);
    while (self->count > 0 || self->busy) pthread_cond_wait(&self->changed, &self->lock);
    pthread_mutex_unlock(&self->lock);
    complete(self->host, token, TW_ACK, "");
    return TW_OK;
}

static void destroy(tw_instance *instance) {
    cfile *self = (cfile *)instance;
    if (self == NULL) return;
    if (self->writing) {
        pthread_mutex_lock(&self->lock);
        self->closing = true;
        pthread_cond_broadcast(&self->changed);
        pthread_mutex_unlock(&self->lock);
        pthread_join(self->writer, NULL);
    }
    if (self->file >= 0) close(self->file);
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
    free(self->path);
    free(self);
}

static const tw_vtable functions = {
    .struct_size = sizeof(tw_vtable),
    .validate = validate,
    .create = create,
    .start = start,
    .deliver = deliver,
    .stop = stop,
    .destroy = destroy,
};

static const tw_plugin plugin = {
    .magic = TW_MAGIC,
    .struct_size = sizeof(tw_plugin),
    .abi_major = TW_ABI_MAJOR,
    .abi_minor = TW_ABI_MINOR,
    .build_flags = TW_BUILD_PANIC_UNWIND,
    .name = STR("cfile"),
    .version = STR("0.1.0"),
    .sdk = STR("c"),
    .summary = STR("Appends id, kind and namespace of each event to a file."),
    .options_schema = STR("{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\",\"minLength\":1,"
                          "\"description\":\"File to append to; made where it does not exist.\"}},"
                          "\"required\":[\"path\"],\"additionalProperties\":false}"),
    .vtable = &functions,
};

const tw_plugin *tailwater_plugin_v0(void) { return &plugin; }
