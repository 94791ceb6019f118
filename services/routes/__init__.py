"""HTTP paths: one module per resource. A handler parses, calls one function, returns."""
