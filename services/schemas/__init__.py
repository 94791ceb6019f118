"""What the API sends: one module per resource. Requests are `jobs.spec` and `jobs.wire`."""
