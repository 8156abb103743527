/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of src/control share: resources as text.
 */
#ifndef WEIR_TESTS_CONTROL_TEST_H
#define WEIR_TESTS_CONTROL_TEST_H

#include "../loop_test.h"
#include "control/store.h"

/* ---- resources ---- */

#define SERVICE(name, port)                                                                                            \
    "apiVersion: v1\nkind: Service\nmetadata: {name: " name "}\nspec: {ports: [{port: " port "}]}\n---\n"
#define PLUGIN(ns, name, rest)                                                                                         \
    "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: " name ", namespace: " ns            \
    "}\nspec: {" rest "}\n---\n"
#define GATEWAY(ns, name, listeners)                                                                                   \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: " name ", namespace: " ns               \
    "}\nspec:\n  gatewayClassName: weir\n  listeners: [" listeners "]\n---\n"
#define ROUTE(ns, name, rest)                                                                                          \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: " name ", namespace: " ns             \
    "}\nspec: {" rest "}\n---\n"

/* The store's clock; moved on so that what is missing is gone at the next settle. */
static uint64_t store_clock = 1000;
__attribute__((unused)) static bool settle(struct store *s) { return store_settle(s, store_clock); }
__attribute__((unused)) static void time_passes(void) { store_clock += STORE_GONE_MS; }

__attribute__((unused)) static void give(struct store *s, const char *path, const char *text)
{
    store_file_set(s, path, str_of(text), NULL, "default");
}
/* A store of one text. */
__attribute__((unused)) static void store_of(struct store *s, const char *text)
{
    *s = (struct store){0};
    give(s, "all.yaml", text);
    settle(s);
    MAP_EACH (e, &s->objects) {
        const struct store_object *o = e->value;
        for (size_t i = 0; i < o->diag.count; i++)
            if (o->diag.entries[i].level == DIAG_ERROR)
                fail_msg("%s", o->diag.entries[i].message);
    }
    struct diag files = {0};
    store_file_errors(s, &files);
    if (files.count > 0)
        fail_msg("%s", files.entries[0].message);
}

#endif
