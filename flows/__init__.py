"""The Prefect flows, which call the stages in order, and the command line with what it needs."""
