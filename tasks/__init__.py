"""One stage a file. Each is a plain function; its Prefect task stands at the end of its file."""
