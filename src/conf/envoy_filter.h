/* SPDX-License-Identifier: Apache-2.0
 *
 * Istio's EnvoyFilter (networking.istio.io/v1alpha3), as far as it puts Wasm filters into a chain: the inline HTTP_FILTER,
 * and the pair of an HTTP_FILTER with config_discovery and its EXTENSION_CONFIG. Each is turned into the WasmPlugin it
 * means. Everything else an EnvoyFilter can do is Envoy's own; a patch that has no equivalent is an error that names it.
 */
#ifndef WEIR_CONF_ENVOY_FILTER_H
#define WEIR_CONF_ENVOY_FILTER_H

#include "base/diag.h"
#include "conf/ydoc.h"

enum { ENVOY_FILTER_PLUGINS_MAX = 64 };

struct envoy_filter {
    struct node *plugins[ENVOY_FILTER_PLUGINS_MAX]; /* WasmPlugin objects, with the places of what they were made of */
    size_t count;
};
/* root: the EnvoyFilter. Nodes go to memory. Errors and warnings go to diag; with errors the plugins still say by name
 * what was meant. count 0: there is no Wasm filter in it (and no errors then). */
void envoy_filter_read(struct conf_memory *memory, const struct node *root, const char *file, const char *title,
                       struct diag *diag, struct envoy_filter *out);

#endif
