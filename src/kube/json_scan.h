/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON looked at where it stands: spans of members and items, nothing built, nothing copied. Lists of a cluster are
 * large, and the objects in them go on as bytes, so that one that cannot be read spoils no other. What is inside a
 * number or a literal is not checked here: whoever reads the object does that. Depth is bounded.
 */
#ifndef WEIR_KUBE_JSON_SCAN_H
#define WEIR_KUBE_JSON_SCAN_H

#include "base/str.h"

enum { JSON_SCAN_DEPTH = 512 };

/* Takes one value, and the spaces around it, off the front of rest. False: none stands there whole. */
NODISCARD bool json_scan_value(struct str *rest, struct str *value);

struct json_iter {
    struct str rest;
    struct str key; /* of an object's member: between the quotes, escapes as written */
    struct str value;
    char close; /* '}' or ']' */
    bool begun, bad;
};
/* text: a value; nothing is iterated, and bad is set, when it is neither object nor list. */
struct json_iter json_iter(struct str text);
/* False at the end, or where the text is no JSON (bad). */
bool json_iter_next(struct json_iter *it);

/* The member's value; STR_NONE when object is none or has no such member. */
struct str json_get(struct str object, const char *key);
/* A string's text, mem_free; NULL when value is no string, or has a NUL or a broken escape in it. */
char *json_scan_string(struct str value);

#endif
