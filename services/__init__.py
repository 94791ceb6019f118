"""HTTP, command line and client. No business rules here. `README.md` maps the package."""
