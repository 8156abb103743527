core.register_action("bench_request", { "http-req" }, function(txn)
    local tenant = txn.sf:req_hdr("x-tenant")
    if tenant ~= "" then
        txn.http:req_set_header("x-tenant", "checked")
    end
    txn.http:req_add_header("x-bench-hop", "1")
end)

core.register_action("bench_response", { "http-res" }, function(txn)
    local kind = txn.sf:res_hdr("content-type")
    if kind ~= "" then
        txn.http:res_add_header("x-bench-filter", '{"mark":"on"}')
    end
end)
