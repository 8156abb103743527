/* SPDX-License-Identifier: Apache-2.0
 *
 * See ask.h. What comes back is read whole: the admin server bounds what it says.
 */
#include "cli/ask.h"

#include <curl/curl.h>

static size_t on_bytes(char *p, size_t size, size_t count, void *arg)
{
    strbuf_add(arg, str_span(p, size * count));
    return size * count;
}

long ask(const char *admin, const char *path, struct strbuf *out, char **error)
{
    char *url = mem_printf("http://%s%s", admin, path), why[CURL_ERROR_SIZE] = "";
    CURL *e = curl_easy_init();
    ASSERT(e != NULL);
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_TIMEOUT, 10L);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, out);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, why);
    long status = 0;
    if (curl_easy_perform(e) == CURLE_OK)
        curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
    else
        *error = mem_printf("%s: %s", url, why);
    curl_easy_cleanup(e);
    mem_free(url);
    return status;
}

json_t *ask_json(const char *admin, const char *path, char **error)
{
    struct strbuf b = {0};
    long status = ask(admin, path, &b, error);
    json_t *doc = status == 200 ? json_loadb(b.p, b.n, 0, NULL) : NULL;
    strbuf_free(&b);
    if (doc == NULL && status != 0)
        *error = mem_printf("http://%s%s: answered %ld, and no document", admin, path, status);
    return doc;
}

const char *ask_text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s != NULL ? s : "";
}

double ask_number(const json_t *o, const char *name) { return json_number_value(json_object_get(o, name)); }
