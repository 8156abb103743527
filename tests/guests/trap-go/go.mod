module weir.example/trap-go

go 1.24
