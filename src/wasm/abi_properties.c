/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions on properties. The host knows the stream and the gateway; here are the plugin's own names, which must
 * work inside the root's on_context_create, and a small store for what root contexts set (Envoy answers NOT_FOUND
 * there, at which Rust filters panic).
 */
#include "wasm/abi.h"

/* Segments joined by NUL; the C++ SDK's list form ends in one more. */
static bool read_path(struct plugin_vm *pv, union vm_value ptr, union vm_value size, struct str *path)
{
    if (!abi_read(pv, ptr, size, path)) {
        return false;
    }
    if (path->n != 0 && path->p[path->n - 1] == 0) {
        path->n--;
    }
    return true;
}

static bool own_name(struct plugin_vm *pv, struct str path, struct str *value)
{
    if (str_is(path, "plugin_name")) {
        *value = str_of(pv->plugin->name);
    } else if (str_is(path, "plugin_root_id")) {
        *value = str_of(pv->plugin->root_id);
    } else if (str_is(path, "plugin_vm_id")) {
        *value = str_of(pv->plugin->vm_id);
    } else {
        return false;
    }
    return true;
}

ABI_FUNCTION(get_property)
{
    struct str path, value;
    void *stream = pv->effective != NULL ? pv->effective->stream : NULL;

    if (!read_path(pv, a[0], a[1], &path) || !abi_gift_ok(pv, a[2], a[3])) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    if (path.n == 0) {
        return ABI_SERIALIZATION_FAILURE;
    }
    if (own_name(pv, path, &value)) {
        return abi_give(pv, value, a[2], a[3]);
    }
    const struct strbuf *own = stream == NULL ? map_get(&pv->properties, path) : NULL;
    if (own != NULL) {
        return abi_give(pv, strbuf_str(own), a[2], a[3]);
    }
    if (pv->ops == NULL || pv->ops->get_property == NULL) {
        return ABI_NOT_FOUND;
    }
    enum abi_status status = pv->ops->get_property(pv->host, stream, path, abi_scratch(pv));
    if (status == ABI_OK) {
        status = abi_give(pv, strbuf_str(&pv->scratch), a[2], a[3]);
    }
    abi_scratch_done(pv);
    return status;
}

static enum abi_status set_root(struct plugin_vm *pv, struct str path, struct str value)
{
    struct strbuf *own = map_get(&pv->properties, path);
    size_t before = own != NULL ? own->n : 0, cost = own != NULL ? 0 : path.n + 128;

    if (pv->property_bytes - before + cost + value.n > PROPERTY_MAX_BYTES) {
        return ABI_INTERNAL_FAILURE;
    }
    if (own == NULL) {
        own = mem_zalloc(sizeof *own);
        map_set(&pv->properties, path, own);
    }
    pv->property_bytes = pv->property_bytes - before + cost + value.n;
    strbuf_clear(own);
    strbuf_add(own, value);
    return ABI_OK;
}

enum abi_status abi_property_set(struct plugin_vm *pv, struct str path, struct str value)
{
    void *stream = pv->effective != NULL ? pv->effective->stream : NULL;

    return stream == NULL ? set_root(pv, path, value) : pv->ops->set_property(pv->host, stream, path, value);
}

/* Segments as one name with dots. */
static void warn_not_kept(struct plugin_vm *pv, struct str path)
{
    char name[128];
    size_t n = path.n < sizeof name ? path.n : sizeof name;

    for (size_t i = 0; i < n; i++) {
        name[i] = path.p[i] != 0 ? path.p[i] : '.';
    }
    abi_warn_once(pv, WARN_PROPERTY, "property %.*s was not kept: there is no room for it", (int)n, name);
}

/* The Rust SDK panics on anything but OK. */
ABI_FUNCTION(set_property)
{
    struct str path, value;

    if (!read_path(pv, a[0], a[1], &path) || !abi_read(pv, a[2], a[3], &value)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    if (path.n == 0 || abi_property_set(pv, path, value) != ABI_OK) {
        warn_not_kept(pv, path);
    }
    return ABI_OK;
}

void properties_forget(struct plugin_vm *pv)
{
    MAP_EACH (e, &pv->properties) {
        strbuf_free(e->value);
        mem_free(e->value);
    }
    map_free(&pv->properties);
}
