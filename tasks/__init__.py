"""The stages, one per module. A stage is a plain function; the `Stage` at the end of its module makes a Prefect task of it."""
