/* SPDX-License-Identifier: Apache-2.0
 *
 * The address by which this gateway calls itself (the second part of Istio's node id).
 */
#ifndef WEIR_PROXY_NODE_ADDRESS_H
#define WEIR_PROXY_NODE_ADDRESS_H

/* INSTANCE_IP of the environment, as Istio sets it in a pod; else the machine's first address that is not loopback,
 * IPv4 before IPv6; else 127.0.0.1. Looked up once; any thread; lives for ever. */
const char *node_address(void);

#endif
