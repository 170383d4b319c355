"""HTTP/2 of the data plane: connections of clients and to model servers, and gRPC over them."""
