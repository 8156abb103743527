/* SPDX-License-Identifier: Apache-2.0
 *
 * What the two halves of the HTTP/1 codec share: h1.c reads, h1_send.c writes. Private to src/http.
 */
#ifndef WEIR_HTTP_H1_LEG_H
#define WEIR_HTTP_H1_LEG_H

#include "http/h1.h"
#include "http/h1_scan.h"

extern const struct leg_codec h1_codec;

/* The leg is gone: ends the exchange, now or when a small rest of the request has come. Calls on_exchange_end. */
void h1_end_exchange(struct h1 *h);
/* May the rest of the request that is being read be so small that it is dropped? */
bool h1_may_drop_rest(const struct h1 *h);
/* Is the exchange's outgoing side cut off if it stops now? Then it is marked so. */
void h1_cut_output(struct h1 *h);
void h1_signal_output(struct h1 *h);
void h1_signal_read_state(struct h1 *h);

#endif
