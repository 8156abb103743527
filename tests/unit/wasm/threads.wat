;; Each tick adds 50 to the shared number "k" by compare-and-swap and puts 50 items into the queue "q"; each
;; on_queue_ready takes one item out and adds 1 to the shared number "t".
(module
  (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
  (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
  (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "ktq")
  (data (i32.const 16) "threads_total")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))

  ;; addresses: 100 value pointer, 104 value size, 108 cas, 112 new value, 116 queue, 120 metric
  (func $add_one (param $key i32) (local $value i32) (local $cas i32)
    (loop $again
      (local.set $value (i32.const 0))
      (local.set $cas (i32.const 0))
      (if (i32.eqz (call $get (local.get $key) (i32.const 1) (i32.const 100) (i32.const 104) (i32.const 108)))
        (then
          (local.set $value (i32.load (i32.load (i32.const 100))))
          (local.set $cas (i32.load (i32.const 108)))))
      (i32.store (i32.const 112) (i32.add (local.get $value) (i32.const 1)))
      (br_if $again
        (call $set (local.get $key) (i32.const 1) (i32.const 112) (i32.const 4) (local.get $cas)))))

  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (if (call $register (i32.const 2) (i32.const 1) (i32.const 116)) (then unreachable))
    (if (call $define (i32.const 0) (i32.const 16) (i32.const 13) (i32.const 120)) (then unreachable))
    (if (call $period (i32.const 1000)) (then unreachable))
    (i32.const 1))
  (func (export "proxy_on_tick") (param i32) (local $i i32)
    (loop $more
      (call $add_one (i32.const 0))
      (if (call $increment (i32.load (i32.const 120)) (i64.const 1)) (then unreachable))
      (if (call $enqueue (i32.load (i32.const 116)) (i32.const 112) (i32.const 4)) (then unreachable))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 50)))))
  (func (export "proxy_on_queue_ready") (param i32 i32)
    (if (call $dequeue (local.get 1) (i32.const 100) (i32.const 104)) (then return))
    (call $add_one (i32.const 1))))
