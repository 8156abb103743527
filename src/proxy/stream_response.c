/* SPDX-License-Identifier: Apache-2.0
 *
 * The step table of a response: from an endpoint or from ourselves, through the chain in reverse, to the client. It is
 * the response that ends a stream, except for a tunnel, which lasts until both directions have ended. It must never
 * begin a second response.
 */
#include "proxy/stream_private.h"

/* ---- the route's edits ---- */

static bool edit_by(struct stream *s, const struct route_filter *filters, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (filters[i].type == FILTER_RESPONSE_HEADERS &&
            route_modify_headers(&filters[i].headers, &s->side[DIR_RESPONSE].msg->headers) != HEADERS_OK)
            return false;
    return true;
}

static bool add_via(struct stream *s)
{
    return !stream_limits(s)->via ||
           headers_add(&s->side[DIR_RESPONSE].msg->headers, STR("via"), STR("1.1 weir")) == HEADERS_OK;
}

void response_edit(struct stream *s)
{
    const struct route *route = s->route.route;
    const struct route_backend *b = s->priv->backend;
    bool ok = add_via(s);

    if (ok && b != NULL)
        ok = edit_by(s, b->filters, b->filter_count);
    if (ok && route != NULL)
        ok = edit_by(s, route->rule->filters, route->rule->filter_count);
    if (!ok)
        reply_reason(s, END_ARENA_FULL);
}

/* ---- steps ---- */

static enum step response_wait(struct stream *s) { return s->side[DIR_RESPONSE].msg != NULL ? STEP_NEXT : STEP_WAIT; }

static enum step response_headers(struct stream *s)
{
    return s->priv->flow[DIR_RESPONSE].head_passed ? STEP_NEXT : STEP_WAIT;
}

static uint16_t final_status(const struct stream *s)
{
    const struct message *msg = s->side[DIR_RESPONSE].msg;
    uint64_t status;

    if (s->filter_count > 0 && str_to_u64(headers_value(&msg->headers, HDR_STATUS), 999, &status) && status >= 100)
        return (uint16_t)status;
    return msg->status;
}

static enum step response_send(struct stream *s)
{
    struct flow *fl = &s->priv->flow[DIR_RESPONSE];

    if (s->down_leg == NULL) {
        stream_end(s, END_CLIENT_GONE);
        return STEP_END;
    }
    if (flow_waits(s, DIR_RESPONSE))
        return STEP_WAIT;
    flow_frame(s, DIR_RESPONSE);
    s->status = final_status(s);
    fl->head_sent = true;
    s->down_leg->codec->send_head(s->down_leg, s->side[DIR_RESPONSE].msg, fl->head_end);
    return STEP_NEXT;
}

static enum step response_body(struct stream *s)
{
    if (s->down_leg == NULL) {
        stream_end(s, END_CLIENT_GONE);
        return STEP_END;
    }
    return flow_send(s, DIR_RESPONSE, s->down_leg) ? STEP_NEXT : STEP_WAIT;
}

static void response_done(struct stream *s)
{
    struct stream_private *p = s->priv;

    if (!p->tunnel)
        stream_end(s, END_VIA_UPSTREAM);
    else if (s->side[DIR_REQUEST].ended)
        stream_end(s, END_TUNNEL);
}

void response_run(struct stream *s)
{
    static enum step (*const steps[])(struct stream * s) = {[RESPONSE_WAIT] = response_wait,
                                                            [RESPONSE_HEADERS] = response_headers,
                                                            [RESPONSE_SEND] = response_send,
                                                            [RESPONSE_BODY] = response_body};
    struct stream_private *p = s->priv;

    while (p->response != RESPONSE_DONE && !stream_is_stopped(s)) {
        if (steps[p->response](s) != STEP_NEXT)
            return;
        p->response++;
    }
    if (p->response == RESPONSE_DONE && !p->ended)
        response_done(s);
}
