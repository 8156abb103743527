(module
  (memory (export "memory") 1)
  (func $begin (loop $again (br $again)))
  (start $begin))
