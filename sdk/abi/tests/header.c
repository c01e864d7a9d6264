/* Compiled as C11 and as C++17 by header.rs: the header alone is enough, twice does no harm, and TW_HAS works. */
#include "tailwater_plugin.h"
#include "tailwater_plugin.h"

static tw_status deliver(tw_instance *instance, const tw_batch *batch, uint64_t token) {
    (void)token;
    return instance != NULL && TW_HAS(batch, tw_batch, timeout_ms) ? TW_OK : TW_E_INVALID;
}

static const tw_vtable functions = {sizeof(tw_vtable), 0, NULL, NULL, NULL, deliver, NULL, NULL, NULL};

const tw_plugin *tailwater_plugin_v0(void) {
    static tw_plugin plugin;
    plugin.magic = TW_MAGIC;
    plugin.vtable = &functions;
    return &plugin;
}
