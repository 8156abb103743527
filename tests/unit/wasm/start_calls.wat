;; The start function calls the host, which reads memory, before the embedder has the instance.
(module
  (import "env" "note" (func $note (param i32)))
  (import "env" "read" (func $read (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "from start")
  (func $begin (call $note (i32.const 42)) (call $read (i32.const 100) (i32.const 10)))
  (start $begin))
