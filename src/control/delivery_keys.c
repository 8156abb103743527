/* SPDX-License-Identifier: Apache-2.0
 *
 * What of a plugin's text makes a difference, and to what: a VM that may go on, a module that is asked for anew. What
 * is left out here is an edit that does nothing; what is too much, a swap that nobody asked for.
 */
#include "control/delivery_priv.h"

static void key_text(struct strbuf *b, const char *text)
{
    strbuf_printf(b, "%zu:%s\n", text != NULL ? strlen(text) : 0, text != NULL ? text : "");
}

/* Phase, priority, selector and match are the chain's business, not the VM's. */
void delivery_keys_of(const struct resource *r, struct delivery_keys *out)
{
    const struct wasm_plugin *p = &r->u.wasm_plugin;
    struct strbuf b = {0};
    key_text(&b, p->plugin_name);
    key_text(&b, p->vm_id);
    strbuf_printf(&b, "%d %d %lld %lld %lld %lld %d %d %zu\n", (int)p->type, (int)p->fail,
                  (long long)p->cpu_deadline_ms, (long long)p->start_deadline_ms, (long long)p->memory_limit,
                  (long long)p->pause_limit_ms, p->utf8, p->pause_headers, p->config_bytes);
    strbuf_add(&b, str_span(p->config, p->config_bytes));
    for (size_t i = 0; i < p->env_count; i++) {
        strbuf_printf(&b, "\n%d ", p->env[i].from_host);
        key_text(&b, p->env[i].name);
        key_text(&b, p->env[i].value);
    }
    sha256_hex(strbuf_str(&b), out->vm);
    strbuf_printf(&b, "\n%d %d\n", (int)r->meta.origin, (int)p->pull_policy);
    key_text(&b, p->url);
    key_text(&b, p->sha256);
    key_text(&b, p->pull_secret);
    key_text(&b, p->verification_key);
    sha256_hex(strbuf_str(&b), out->want);
    strbuf_free(&b);
}

/* Not metadata.resourceVersion: that changes with every status somebody writes, our own among them. The digest is of
 * everything but that. */
char *delivery_version_of(const struct resource *r)
{
    struct strbuf b = {0};
    strbuf_printf(&b, "%s/%lld/", r->meta.uid != NULL ? r->meta.uid : "", (long long)r->meta.generation);
    for (size_t i = 0; i < sizeof r->meta.digest; i++)
        strbuf_printf(&b, "%02x", r->meta.digest[i]);
    return strbuf_take(&b);
}
