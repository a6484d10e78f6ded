"""What several stages share, with no Prefect in it. Importing it does nothing."""
