/* SPDX-License-Identifier: Apache-2.0
 *
 * weir sign: signs what a reference names, and makes keys to do it with.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/registry_options.h"
#include "fetch/credentials.h"
#include "fetch/oci_sign.h"
#include "fetch/signature.h"

static const char help_text[] =
    "usage: weir sign REF --key FILE [OPTION...]\n"
    "       weir sign --generate-key NAME\n\n"
    "Signs the image or artifact that REF names now, and puts the signature beside it in its repository. A plugin "
    "with\n"
    "the public key in verificationKey takes nothing that is not signed so.\n"
    "Credentials are those of docker login ($DOCKER_CONFIG/config.json or ~/.docker/config.json).\n\n"
    "  --key FILE                 the private key: PEM, not encrypted\n"
    "  --format cosign|detached   as cosign does with a key (default), or an artifact that refers to the image\n"
    "  --generate-key NAME        a new pair: NAME.key (0600) and NAME.pub; neither may be "
    "there\n" REGISTRY_OPTIONS_HELP "\nPrints what was signed. Exit codes: 0 fine, 1 it did not work, 2 wrong usage.\n";

struct sign {
    struct loop loop;
    const char *reference, *key_path, *generate;
    enum oci_sign_form form;
    char *key;
    int code;
};

/* ---- keys ---- */

static bool write_new(const char *path, struct str bytes, mode_t mode)
{
    if (file_create(path, bytes) && chmod(path, mode) == 0)
        return true;
    char *text = mem_printf("cannot write %s: %s", path, strerror(errno));
    cli_complain("sign", text);
    mem_free(text);
    return false;
}

static int generate(const char *name)
{
    struct strbuf private_pem = {0}, public_pem = {0};
    char *private_path = mem_printf("%s.key", name), *public_path = mem_printf("%s.pub", name);
    char *error = signature_make_key(&private_pem, &public_pem);
    bool ok = error == NULL;
    if (!ok)
        cli_complain("sign", error);
    else if (access(public_path, F_OK) == 0) {
        char *text = mem_printf("%s is there already", public_path);
        cli_complain("sign", text);
        mem_free(text);
        ok = false;
    }
    ok = ok && write_new(private_path, strbuf_str(&private_pem), 0600) &&
         write_new(public_path, strbuf_str(&public_pem), 0644);
    if (ok)
        printf("%s\n%s\n", private_path, public_path);
    if (private_pem.p != NULL)
        explicit_bzero(private_pem.p, private_pem.n);
    mem_free(error);
    mem_free(private_path);
    mem_free(public_path);
    strbuf_free(&private_pem);
    strbuf_free(&public_pem);
    return ok ? CLI_OK : CLI_FAILED;
}

/* ---- signing ---- */

static void on_done(void *arg, const struct oci_sign_result *r)
{
    struct sign *s = arg;
    loop_stop(&s->loop);
    if (r->failure->reason == NULL) {
        printf("digest: %s\nsignature: %s\n", r->digest, r->where);
        s->code = CLI_OK;
        return;
    }
    char *text = mem_printf("%s: %s", r->failure->reason, r->failure->text != NULL ? r->failure->text : "");
    cli_complain("sign", text);
    mem_free(text);
    s->code = CLI_FAILED;
}

static int sign(struct sign *s, const struct registry_table *t, const struct reference *ref)
{
    loop_init(&s->loop);
    struct transfers *transfers = transfers_new(&s->loop, NULL);
    struct registry_places places;
    registry_resolve(t, ref, &places);
    char *config = credentials_config_path(NULL), *registry = registry_credentials_name(ref, &places.list[0]);
    /* The first place is where images come from; what mirrors have is theirs to copy. */
    struct repository *r = repository_new(&(struct repository_options){.loop = &s->loop,
                                                                       .transfers = transfers,
                                                                       .place = &places.list[0],
                                                                       .config_file = config,
                                                                       .registry = registry,
                                                                       .push = true});
    struct strbuf name = {0};
    strbuf_printf(&name, "%s/%s", ref->registry, ref->repository);
    strbuf_addc(&name, '\0');
    oci_sign_start(r, ref->digest != NULL ? ref->digest : ref->tag, name.p, s->key, s->form, on_done, s);
    loop_run(&s->loop);
    repository_free(r);
    registry_places_free(&places);
    transfers_free(transfers);
    loop_fini(&s->loop);
    strbuf_free(&name);
    mem_free(registry);
    mem_free(config);
    return s->code;
}

static int run(struct sign *s, const struct registry_table *t)
{
    struct reference ref;
    char *error = NULL;
    size_t n = 0;
    if (!reference_parse(str_of(s->reference), &ref, &error)) {
        (void)cli_usage_error("sign", "%s", error);
        mem_free(error);
        return CLI_USAGE;
    }
    int code = CLI_USAGE;
    s->key = file_read_all(s->key_path, SIGNATURE_KEY_MAX, &n, &error);
    if (s->key != NULL)
        code = sign(s, t, &ref);
    else
        (void)cli_usage_error("sign", "%s: %s", s->key_path, error);
    if (s->key != NULL)
        explicit_bzero(s->key, n);
    mem_free(error);
    mem_free(s->key);
    reference_free(&ref);
    return code;
}

static int read_options(struct sign *s, struct registry_table *t, struct cli_args *a, bool *help)
{
    while (cli_next(a)) {
        if (a->name == NULL && s->reference == NULL) {
            s->reference = a->value;
            continue;
        }
        if (a->name == NULL)
            return cli_usage_error("sign", "one reference, not also %s", a->value);
        if (strcmp(a->name, "help") == 0) {
            *help = true;
            return CLI_OK;
        }
        int taken = registry_option(t, "sign", a);
        if (taken == CLI_OK)
            continue;
        if (taken == CLI_USAGE)
            return CLI_USAGE;
        const char **to = strcmp(a->name, "key") == 0            ? &s->key_path
                          : strcmp(a->name, "generate-key") == 0 ? &s->generate
                                                                 : NULL;
        if (to == NULL && strcmp(a->name, "format") != 0)
            return cli_usage_error("sign", "no option --%s", a->name);
        const char *value = cli_value(a);
        if (value == NULL)
            return CLI_USAGE;
        if (to != NULL)
            *to = value;
        else if (strcmp(value, "detached") == 0)
            s->form = OCI_SIGN_DETACHED;
        else if (strcmp(value, "cosign") != 0)
            return cli_usage_error("sign", "--format \"%s\": want cosign or detached", value);
    }
    if (s->generate != NULL)
        return s->reference == NULL ? CLI_OK : cli_usage_error("sign", "--generate-key makes keys and signs nothing");
    if (s->reference == NULL)
        return cli_usage_error("sign", "which image?");
    return s->key_path != NULL ? CLI_OK : cli_usage_error("sign", "with which --key?");
}

int cli_sign(int argc, char **argv)
{
    struct cli_args a = {.argc = argc, .argv = argv};
    struct sign s = {.form = OCI_SIGN_COSIGN};
    struct registry_table *t = registry_table_new();
    bool help = false;
    int code = read_options(&s, t, &a, &help);
    if (help)
        fputs(help_text, stdout);
    else if (code == CLI_OK)
        code = s.generate != NULL ? generate(s.generate) : run(&s, t);
    registry_table_free(t);
    return code;
}
