"""From a job spec to a published encoder. `README.md` maps the package."""
