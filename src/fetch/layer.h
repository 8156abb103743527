/* SPDX-License-Identifier: Apache-2.0
 *
 * The module in the bytes of a layer: a module as it is, or a tar, tar+gzip or tar+zstd with a file whose base name is
 * plugin.wasm (the first), or else exactly one *.wasm. Nothing of an archive is ever written to disk, links are not
 * followed, whiteouts are no modules, and what headers say of sizes is not believed: everything is counted as it comes.
 */
#ifndef WEIR_FETCH_LAYER_H
#define WEIR_FETCH_LAYER_H

#include "base/str.h"

enum layer_found {
    LAYER_NOTHING, /* no *.wasm, or several and no plugin.wasm: error says which */
    LAYER_ONLY,    /* the only *.wasm of the archive */
    LAYER_PLUGIN,  /* plugin.wasm, or the layer itself is a module */
    LAYER_BROKEN,  /* damaged, cut off, too large; error says */
};

/* Blocks: not for a loop's thread. max: of the module; archives are read up to 8 times that. module and n (mem_free):
 * set with ONLY and PLUGIN. error (mem_free): set with NOTHING and BROKEN. */
enum layer_found layer_find_module(struct str bytes, size_t max, char **module, size_t *n, char **error);

#endif
